"""How long it takes to launch a kernel, and to replace one that ends by the next."""
from host.driver import Device
from host.isa import Code, Op
from host.outcome import Outcome
from host.program import Program
from host.transport import open_package

COMMANDS = 100          # of a kernel: the next launch arrives meanwhile
KERNELS = 8
STREAMS = 4


def kernel(device):
    """A program for each PE that does nothing but take time."""
    program = Program()
    for _ in range(COMMANDS):
        program.add(Op.NOP)
    return dict.fromkeys(device.pes, program)


def run_all(device, kernels, streams):
    """Submit kernels by one doorbell, each to its stream, and wait for all.

    Returns the cycle before the doorbell, and the completions.
    """
    begin = device.transport.cycle
    with device.batch():
        events = [device.start(made, stream=stream)
                  for made, stream in zip(kernels, streams, strict=True)]
    return begin, [event.wait() for event in events]


def replacements(spans):
    """Cycles from the end of each kernel on its last PE to the start of the next on all PEs.

    ``spans``: of each kernel, the first command and the end on every PE, see
    ``CosimTransport.programs``.
    """
    return [max(first for first, _ in later) - max(end for _, end in earlier)
            for earlier, later in zip(spans, spans[1:], strict=False)]


def run(options):
    """Measure a launch on an idle package, and kernels that follow each other on all PEs."""
    with open_package(options, record=True) as transport:
        device = Device(transport)
        kernels = [device.prepare(0, kernel(device)) for _ in range(1 + 2 * KERNELS)]
        device.synchronize()
        options.step(0, 3, "launch")
        doorbell, done = run_all(device, kernels[:1], [0])
        options.step(1, 3, "kernels of one stream")
        done += run_all(device, kernels[1:1 + KERNELS], [0] * KERNELS)[1]
        options.step(2, 3, "kernels of four streams")
        done += run_all(device, kernels[1 + KERNELS:], [n % STREAMS for n in range(KERNELS)])[1]
        lanes = [lane for lane in transport.programs(0) if lane]    # a spare PE ran nothing
        pes, clock = len(device.pes), transport.clock_hertz
    options.step(3, 3, "done")
    spans = list(zip(*lanes, strict=True))
    same, mixed = (replacements(spans[1 + n:][:KERNELS]) for n in (0, KERNELS))
    cycles = {"launch": max(first for first, _ in spans[0]) - doorbell,
              "replace": max(same + mixed), "replace_in_stream": max(same),
              "replace_between_streams": max(mixed)}
    outcome = Outcome("launch", options.package)
    outcome.metrics = {f"{name}_cycles": count for name, count in cycles.items()}
    outcome.metrics |= {f"{name}_us": count / clock * 1e6 for name, count in cycles.items()}
    outcome.checks = {"all_ended_well": all(c.code == Code.OK for c in done),
                      "all_seen": len(spans) == len(done) == 1 + 2 * KERNELS}
    outcome.config = {"pes": pes, "kernels": KERNELS, "commands": COMMANDS, "streams": STREAMS,
                      "clock_ghz": clock / 1e9}
    return outcome
