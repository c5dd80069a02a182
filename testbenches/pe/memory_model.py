"""Memory behind the request and response streams of a PE, for tests."""
from cocotb.triggers import RisingEdge

ADDRESS, TAG, DATA = 48, 8, 512
LINE = 64
ERROR_ADDRESS, ERROR_POISON, ERROR_LINK_DOWN = 1, 2, 3


def mask_bits(mask):
    """Bits selected by a mask of bytes."""
    return sum(0xFF << 8 * i for i in range(LINE) if mask >> i & 1)


class MemoryModel:
    """Answers requests after a random time, in any order; lines are integers by their number.

    ``errors`` maps a line number to the error of any access to it. Requests are taken and answers
    given with random gaps; ``frozen`` stops both.
    """

    def __init__(self, dut, rng, *, latency=(1, 12), rate=0.8):
        self.dut, self.rng, self.latency, self.rate = dut, rng, latency, rate
        self.lines, self.errors = {}, {}
        self.pending, self.requests = [], []
        self.frozen = False
        self.now = 0

    def store(self, address, data):
        """Write bytes at a byte address."""
        for offset, byte in enumerate(bytes(data)):
            line, at = divmod(address + offset, LINE)
            self.lines[line] = self.lines.get(line, 0) & ~(0xFF << 8 * at) | byte << 8 * at

    def load(self, address, count):
        return bytes(self.lines.get(a // LINE, 0) >> 8 * (a % LINE) & 0xFF
                     for a in range(address, address + count))

    def _take(self, request):
        address = request & (1 << ADDRESS) - 1
        tag = request >> ADDRESS & 0xFF
        write = request >> ADDRESS + TAG & 1
        line, error = address // LINE, self.errors.get(address // LINE, 0)
        self.requests.append((address, tag, write))
        data = 0
        if write and not error:
            bits = mask_bits(request >> ADDRESS + TAG + 1 + DATA)
            value = request >> ADDRESS + TAG + 1 & (1 << DATA) - 1
            self.lines[line] = self.lines.get(line, 0) & ~bits | value & bits
        elif not error:
            data = self.lines.get(line, 0)
        self.pending.append((self.now + self.rng.randint(*self.latency),
                             tag | write << TAG | error << TAG + 1 | data << TAG + 3))

    async def run(self):
        """Runs until cancelled."""
        dut, rng, shown = self.dut, self.rng, False
        while True:
            await RisingEdge(dut.clk)
            self.now += 1
            if dut.request__valid.value and dut.request__ready.value:
                self._take(int(dut.request__payload.value))
            if not shown or dut.response__ready.value:
                due = [p for p in self.pending if p[0] <= self.now]
                shown = bool(due) and not self.frozen and rng.random() < self.rate
                dut.response__valid.value = int(shown)
                if shown:
                    answer = rng.choice(due)
                    self.pending.remove(answer)
                    dut.response__payload.value = answer[1]
            dut.request__ready.value = int(not self.frozen and rng.random() < self.rate)
