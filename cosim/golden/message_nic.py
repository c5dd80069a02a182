"""Queue pairs without time: messages move in frames, in any order that the transport allows.

A queue pair moves its requests in the order they were posted. A frame reads memory when it is
sent, and sometimes again later, as a NIC that repeats it does; it is written when it arrives. See
docs/network.md.
"""
from collections import deque
from dataclasses import dataclass, field

PLACES = 16     # of a queue
REPEAT = 0.2    # of frames: they read memory again before they arrive
WINDOW = 4      # frames under way

SEND, WRITE, WRITE_IMM, READ, RECV = 1, 2, 3, 4, 0x10
OK, LOCAL_PROTECTION, REMOTE_PROTECTION, LENGTH = 0, 1, 2, 4
FLUSHED, STATE, OVERRUN = 7, 8, 9
NAMES = {SEND: "SEND", WRITE: "WRITE", WRITE_IMM: "WRITE_IMM", READ: "READ", RECV: "RECV"}


@dataclass(eq=False)
class Request:
    """A work request. ``done``: called with the status, once, when it ends."""

    opcode: int
    length: int
    local: int
    local_key: int
    done: object
    remote: int = 0
    remote_key: int = 0
    immediate: int = 0
    started: bool = False
    sent: int = 0
    taken: int = 0
    complete: bool = False
    status: int = OK


@dataclass
class Region:
    """Registered memory of a node."""

    base: int
    length: int
    domain: int = 0
    remote_read: bool = False
    remote_write: bool = False

    def holds(self, at, count, domain):
        return (self.domain == domain and self.base <= at
                and at + count <= self.base + self.length)


@dataclass(eq=False)
class QueuePair:
    """One end of a connection; ``peer`` is the other. Its requests move to the peer."""

    node: object
    number: int
    frame_bytes: int
    domain: int = 0
    peer: "QueuePair" = None
    state: str = "READY"
    sends: deque = field(default_factory=deque)
    receives: deque = field(default_factory=deque)
    flight: deque = field(default_factory=deque)        # of the requests in ``sends``
    ended: deque = field(default_factory=deque)         # receives whose completion is on its way
    pace: float = 1.0

    def post(self, request):
        """Take a request; an error ends it at once, and the queue pair with it."""
        queue = self.receives if request.opcode == RECV else self.sends
        status = OK
        if self.state != "READY":
            status = FLUSHED if self.state == "ERROR" else STATE
        elif len(queue) + (queue is self.receives) * len(self.ended) >= PLACES:
            status = OVERRUN
        elif request.length and not self.node.allows(request.local_key, request.local,
                                                     request.length, self.domain):
            status = LOCAL_PROTECTION
        if status == OK:
            queue.append(request)
            self.node.system.wake(self)
            return
        if status != FLUSHED:
            self.fail()
        request.done(status)

    def fail(self):
        """Go to the error state: all that stands here is flushed."""
        self.state = "ERROR"
        for request in (*self.ended, *self.receives, *self.sends):
            request.done(FLUSHED if request.status == OK and not request.complete
                         else request.status)
        for queue in (self.ended, self.receives, self.sends, self.flight):
            queue.clear()

    @property
    def idle(self):
        return not (self.sends or self.ended)

    def step(self, random):
        """Do one thing that can happen next; False if there is none."""
        if self.state != "READY":
            return False
        choices = [self._notify] * bool(self.ended)
        if self.sends and self.sends[0].complete:
            choices.append(self._acknowledge)
        if self.flight and self._can_arrive():
            choices.append(self._arrive)
        if len(self.flight) < WINDOW and self._next() is not None:
            choices.append(self._send)
        if not choices:
            return False
        random.choice(choices)(random)
        return True

    def _next(self):
        """The request of the next frame; a READ holds up those behind it."""
        for request in self.sends:
            if not request.started or request.sent < request.length:
                return request
            if request.opcode == READ and not request.complete:
                return None
        return None

    def _can_arrive(self):
        request = self.flight[0][0]
        return request.opcode not in (SEND, WRITE_IMM) or bool(self.peer.receives)

    def _read(self, request, at, count):
        if request.opcode == READ:
            return self.peer.node.memory.read(request.remote + at, count).copy()
        return self.node.memory.read(request.local + at, count).copy()

    def _send(self, random):
        request = self._next()
        count = min(self.frame_bytes, request.length - request.sent)
        if request.opcode in (READ, WRITE, WRITE_IMM) and not request.started and count:
            may = "remote_read" if request.opcode == READ else "remote_write"
            if not self.peer.node.allows(request.remote_key, request.remote, request.length,
                                         self.peer.domain, may):
                self._refuse(request, REMOTE_PROTECTION)
                return
            self.peer.node.touch(request, request.remote, request.length,
                                 request.opcode != READ, f"{NAMES[request.opcode]} of its peer")
        request.started = True
        self.flight.append((request, request.sent, count,
                            self._read(request, request.sent, count)))
        request.sent += count

    def _arrive(self, random):
        request, at, count, payload = self.flight.popleft()
        if random.random() < REPEAT:
            payload = self._read(request, at, count)
        peer = self.peer
        if request.opcode == SEND:
            receive = peer.receives[0]
            if request.length > receive.length:
                receive.status = LENGTH
                self._refuse(request, LENGTH)
                return
            peer.node.memory.write(receive.local + at, payload)
        elif request.opcode == READ:
            self.node.memory.write(request.local + at, payload)
        else:
            peer.node.memory.write(request.remote + at, payload)
        request.taken += count
        if request.taken == request.length:
            request.complete = True
            peer.node.release(request)
            if request.opcode in (SEND, WRITE_IMM):
                receive = peer.receives.popleft()
                receive.complete = True
                peer.ended.append(receive)
                peer.node.system.wake(peer)

    def _refuse(self, request, status):
        """A request that ends with an error, and both ends of the connection with it."""
        request.status = status
        self.peer.node.release(request)
        self.peer.fail()
        self.fail()

    def _notify(self, random):
        request = self.ended.popleft()
        request.done(request.status)

    def _acknowledge(self, random):
        request = self.sends.popleft()
        request.done(request.status)
