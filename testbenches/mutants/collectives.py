"""Mutants of the collectives library and of the model that its programs run on."""
from testbenches.mutants.attention import of

SUMS = "testbenches/host/test_collectives.py"
MOVES = "testbenches/host/test_collectives_moves.py"
PLANS = "testbenches/host/test_collectives_plans.py"
GROUP = "testbenches/host/test_collectives_group.py"
MODEL = "testbenches/golden/test_message_system.py"

MUTANTS = (
    *of("host/collectives/lane.py", SUMS,
        ("a sum does not wait for what it adds", "            or overlap(reads, their_writes)]",
         "            ]"),
        ("bytes are received while they are sent", "if overlap(writes, their_reads) or ",
         "if "),
        ("an entry waits for the one before the one it needs",
         "step.back = len(self.steps) - needed[0]", "step.back = len(self.steps) - needed[0] + 1"),
        ("of several entries only the last is waited for", "for other in needed[:-1]:",
         "for other in []:")),
    *of("host/collectives/lane.py", MOVES,
        ("the bytes before a chunk on its line are lost",
         "(room, 3 * LINE - before), before + shifted)", "(room, 3 * LINE), before + shifted)"),
        ("a lane tells that it has ended before it has", "immediate=value, sync=True),",
         "immediate=value),")),
    *of("host/collectives/lane.py", PLANS,
        ("all entries before are waited for", "        if len(needed) == 1:",
         "        step.sync = bool(needed)\n        if len(needed) == 1:"),
        ("requests of a queue are taken to end in any order",
         "last[self.steps[n].queue or n] = n", "last[n] = n")),
    *of("host/collectives/items.py", SUMS,
        ("receives are posted ahead of those who need the bytes",
         "for before in range(number, n)):", "for before in range(number, number)):"),
        ("receives fill the places of the entries", "AHEAD = 4 ", "AHEAD = 16 ")),
    *of("host/collectives/items.py", GROUP,
        ("what peers tell of themselves is not compared",
         "        if check and not empty(item.receive):", "        if False:")),
    *of("host/collectives/ring.py", SUMS,
        ("a chunk starts at its own rank", "share.peer(-1 - step) % n, share.peer(-2 - step) % n",
         "share.peer(-step) % n, share.peer(-1 - step) % n")),
    *of("host/collectives/plan.py", MOVES,
        ("several lanes write the same line", "return 1 if alone else min(",
         "return min(")),
    *of("host/collectives/direct.py", SUMS,
        ("sums of all ranks stand in the target too soon",
         "room = first if first.buffer.startswith(\"staging\") else term", "room = target")),
    *of("host/collectives/system.py", GROUP,
        ("connections after an error are used again", "                self.disconnect(*key)\n",
         "                pass\n")),
    *of("cosim/golden/message_system.py", MODEL,
        ("a fence holds up nobody", "        if fences:", "        if False:"),
        ("a race is overlooked", "(writes or written) and other != owner",
         "writes and written and other != owner"),
        ("any number of entries is under way", "len(self.running) >= UNDER_WAY",
         "len(self.running) > 2 * UNDER_WAY")),
)
