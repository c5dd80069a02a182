"""The main job: sentence vectors by the MiniLM transformer on a package."""
import time
from dataclasses import dataclass, field, fields, replace

import numpy as np

from cosim.golden import formats as number_formats
from cosim.golden import transformer as golden
from host import counters
from host.isa import LINE, Format, Region, Rule, Unit, offset_of
from host.kernels import transformer as kernels
from host.models import minilm
from host.tensor import Tensor, pack

SHAPE = kernels.Shape(epsilon=minilm.EPSILON)
AHEAD_BYTES = 1 << 20   # of programs that come before their step
STATE_BYTES = 1 << 21   # of hidden states in the SRAM of a die
MATRICES = ("qkv", "out", "up", "down")


@dataclass
class Share:
    """The sentences of one die: which, their rows among the die's tokens, and its tensors."""

    die: int
    numbers: list
    spans: list
    ids: np.ndarray
    positions: np.ndarray
    act: kernels.Activations | None = None
    states: list = field(default_factory=list)      # hidden states before and after each layer
    tensors: dict = field(default_factory=dict)


@dataclass
class Result:
    """What a run gave: vectors, hidden states by stage and die, cycles to the vectors, counters."""

    vectors: np.ndarray
    states: list            # [stage][die] -> uint32 patterns [tokens, width]
    shares: list
    cycles: int
    seconds: float
    counters: counters.Totals


@dataclass
class Phase:
    """Projections and attention of a layer: cycles of the slowest PE, elements, equal ones."""

    cycles: int
    compared: int
    equal: int


def share_out(ids, dies):
    """Give each sentence to the die with the fewest tokens so far, longest sentence first."""
    load, taken = [0] * dies, [[] for _ in range(dies)]
    for number in sorted(range(len(ids)), key=lambda n: -len(ids[n])):
        die = load.index(min(load))
        taken[die].append(number)
        load[die] += len(ids[number])
    shares = []
    for die, numbers in enumerate(taken):
        if not numbers:
            continue
        ends = np.cumsum([len(ids[n]) for n in numbers])
        spans = [(int(e) - len(ids[n]), int(e)) for n, e in zip(numbers, ends, strict=True)]
        shares.append(Share(die, numbers, spans, np.concatenate([ids[n] for n in numbers]),
                            np.concatenate([np.arange(len(ids[n])) for n in numbers])))
    return shares


class Blob:
    """Tensors one after another in one run of lines."""

    def __init__(self):
        self.parts, self.size = [], 0

    def _take(self, data):
        at = self.size
        raw = data.reshape(-1)
        padded = np.zeros(-(-raw.size // LINE) * LINE, np.uint8)
        padded[:raw.size] = raw
        self.parts.append(padded)
        self.size += padded.size
        return at

    def add(self, packed):
        """Append a packed matrix; its tensor has addresses from the start of the blob."""
        elements = self._take(packed.elements)
        scales = None if packed.scales is None else self._take(packed.scales)
        return Tensor(elements, packed.rows, packed.columns, packed.format, scales)

    def row(self, values):
        return self.add(pack(values[None], Format.FP32))

    def bytes(self):
        return np.concatenate(self.parts)


def moved(where, base):
    """The tensors of a blob that was brought to address ``base``."""
    def one(value):
        if isinstance(value, list):
            return [one(v) for v in value]
        scales = None if value.scales is None else value.scales + base
        return replace(value, address=value.address + base, scales=scales)
    return kernels.LayerWeights(**{f.name: one(getattr(where, f.name)) for f in fields(where)})


class Flow:
    """The packets of one die, step by step in a stream; programs come while others run."""

    def __init__(self, device, share, programs):
        self.device, self.die = device, share.die
        self.programs, self.steps = programs, []
        self.start(0)

    def _prepare(self, programs):
        return self.device.prepare(self.die, programs, stream=self.die)

    def upload(self):
        """Bring programs of later steps, as far as there is room; one at least, if there is."""
        used = 0
        for programs in self.programs[len(self.steps):]:
            size = sum(LINE * len(p.words()) for p in programs.values())
            if used and used + size > AHEAD_BYTES:
                break
            try:
                self.steps.append(self._prepare(programs))
            except MemoryError:
                break
            used += size

    def wait(self, totals):
        """Wait until the step under way has ended, and count what its PEs did."""
        self.event.wait()
        totals.add(self.device, self.die, self.device.pes)

    def start(self, step):
        """Launch a step; behind it the next program comes, if it is not there."""
        if step == len(self.steps):
            self.steps.append(self._prepare(self.programs[step]))
        self.event = self.device.start(self.steps[step], stream=self.die)
        if 0 < step == len(self.steps) - 1:
            self.upload()


class Encoder:
    """MiniLM on a device; parameters lie in each die's HBM.

    Parameters
    ----------
    device : host.driver.Device
    weights : host.models.minilm.Weights
    weight_format : Format
        E2M1, E4M3 or E5M2.
    resident : bool
        Parameters are placed into HBM before the run, as after an earlier upload; otherwise they
        are copied through the host interface and the die-to-die link, cycle by cycle.
    fused : bool
        Attention by the attention unit, P in E4M3; if None, where PEs have one.
        :exc:`ValueError` for True where they have none.
    """

    def __init__(self, device, weights, *, weight_format=Format.E4M3, rule=Rule.FLOOR,
                 weight_rule=Rule.FLOOR, activations=Format.E4M3, resident=True,
                 fused=None):
        self.device, self.weights, self.resident = device, weights, resident
        self._check(fused)
        fused = device.configuration.attention if fused is None else fused
        self.probabilities = Format.E4M3 if fused else None
        self.form, self.rule, self.activations = weight_format, rule, activations
        self.arithmetic = golden.Arithmetic(
            number_formats.Format(weight_format), number_formats.Format(activations),
            weight_rule, rule, self.golden_p(self.probabilities))
        self.packed = [{name: pack(getattr(layer, name), weight_format, rule=weight_rule)
                        for name in MATRICES} for layer in weights.layers]
        self.placed = {}

    def _check(self, fused):
        if fused and not self.device.configuration.attention:
            raise ValueError("Fused must be False where PEs have no attention unit, not True")

    @staticmethod
    def golden_p(probabilities):
        return None if probabilities is None else number_formats.Format(probabilities)

    def place(self, die):
        """Bring the parameters into a die's HBM, once; PEs read them there when they need them."""
        if die in self.placed:
            return self.placed[die]
        put = self._resident if self.resident else self._copied
        layers = []
        for layer, packed in zip(self.weights.layers, self.packed, strict=True):
            blob = Blob()
            matrices = {name: blob.add(packed[name]) for name in MATRICES}
            biases = {f"{name}_bias": blob.row(getattr(layer, f"{name}_bias")) for name in MATRICES}
            norms = {name: [blob.row(v) for v in getattr(layer, name)]
                     for name in ("norm1", "norm2")}
            layers.append(moved(kernels.LayerWeights(**matrices, **biases, **norms),
                                put(die, blob.bytes())))
        tables = [self._table(die, put, t) for t in (self.weights.words, self.weights.positions)]
        norm = [self._table(die, put, v[None]) for v in self.weights.norm]
        self.placed[die] = tables, norm, layers
        self.device.synchronize()
        return self.placed[die]

    @staticmethod
    def _table(die, put, values):
        """An FP32 matrix in HBM."""
        packed = pack(values, Format.FP32)
        at = put(die, packed.elements)
        return Tensor(at, packed.rows, packed.columns, packed.format)

    def _copied(self, die, data):
        at = self.device.alloc(die, data.size, Region.HBM)
        self.device.write(at, data, stream=die)
        return at

    def _resident(self, die, data):
        at = self.device.alloc(die, data.size, Region.HBM)
        self.device.transport.preload(die, offset_of(at), data)
        return at

    def _activations(self, share):
        d, tokens, width = self.device, len(share.ids), SHAPE.width
        share.act = kernels.Activations(
            None, *(d.empty(share.die, tokens, columns, form) for columns, form in (
                (width, self.activations), (width, self.activations),
                (width, Format.FP32), (SHAPE.inner, self.activations))))
        share.tensors["vectors"] = d.empty(share.die, len(share.spans), width, Format.FP32)
        for name in ("ids", "positions"):
            data = getattr(share, name).astype("<u4")
            share.tensors[name] = d.alloc(share.die, data.nbytes)
            d.write(share.tensors[name], data, stream=share.die)
        share.states = [self._state(share.die, tokens, number)
                        for number in range(len(self.weights.layers) + 1)]

    def _state(self, die, tokens, number):
        """Memory of a hidden state: SRAM, or HBM if there are many tokens."""
        size = (number + 1) * tokens * SHAPE.width * 4
        region = Region.SRAM if size <= STATE_BYTES else Region.HBM
        return self.device.empty(die, tokens, SHAPE.width, Format.FP32, region)

    def _programs(self, share):
        """Programs by step: embedding, layers, pooling."""
        tables, norm, layers = self.placed[share.die]
        pes, options = self.device.pes, {"shape": SHAPE, "rule": self.rule}
        programs = [kernels.embed(
            tables, [share.tensors["ids"], share.tensors["positions"]],
            replace(share.act, x=share.states[0]), norm, pes=pes, **options)]
        for number, weights in enumerate(layers):
            programs.append(kernels.layer(
                weights, replace(share.act, x=share.states[number + 1]), share.spans,
                before=share.states[number], pes=pes, probabilities=self.probabilities, **options))
        programs.append(kernels.pool(share.states[-1], share.tensors["vectors"], share.spans,
                                     pes=pes))
        return programs

    def run(self, ids, *, progress=lambda done, total: None):
        """Vectors of tokenised texts; reads every layer's hidden state back.

        Cycles count until the vectors are in host memory; hidden states, for the comparison, come
        after.
        """
        device, started = self.device, time.perf_counter()
        shares = share_out(ids, len(device.dies))
        for share in shares:
            self.place(share.die)
        first = device.transport.cycle
        for share in shares:
            self._activations(share)
        flows = [Flow(device, share, self._programs(share)) for share in shares]
        totals = counters.Totals()
        stages = len(self.weights.layers) + 2
        for step in range(1, stages):
            progress(step - 1, stages)
            for flow in flows:
                flow.wait(totals)
                if step == 1:
                    flow.upload()
            for flow in flows:
                flow.start(step)
        for flow in flows:
            flow.wait(totals)
        vectors = np.zeros((len(ids), SHAPE.width), np.float32)
        for share in shares:
            vectors[share.numbers] = device.get(share.tensors["vectors"], stream=share.die)
        cycles = device.transport.cycle - first
        progress(stages, stages)
        states = [[device.get(s.states[stage], stream=s.die).view(np.uint32) for s in shares]
                  for stage in range(stages - 1)]
        for tensor in (tensor for share in shares for tensor in share.states):
            device.release(tensor)
        return Result(vectors, states, shares, cycles, time.perf_counter() - started, totals)

    def attend(self, result, *, fused):
        """Run projections and attention of the last layer alone on the last hidden states.

        Every element is compared with the golden model. ``fused`` as in the constructor.
        """
        self._check(fused)
        probabilities = Format.E4M3 if fused else None
        arithmetic = replace(self.arithmetic, p=self.golden_p(probabilities))
        phase, layer = Phase(0, 0, 0), self.coded()[-1]
        for share, x in zip(result.shares, result.states[-1], strict=True):
            heads = share.act.heads
            cycles = self._launch_phase(share, probabilities=probabilities)
            phase.cycles = max(phase.cycles, cycles)
            mixed = golden.mixed(x, layer, share.spans, SHAPE.heads, arithmetic)
            wanted = pack(mixed.view(np.float32), self.activations, rule=self.rule)
            got = self.device.read(heads.address, heads.element_bytes, stream=share.die)
            phase.compared += wanted.elements.size
            phase.equal += int((got == wanted.elements.reshape(-1)).sum())
        return phase

    def project(self, result):
        """Run the products of these projections alone; cycles of the slowest PE."""
        return max(self._launch_phase(share, alone=True) for share in result.shares)

    def _launch_phase(self, share, **options):
        """Launch the first phase of the last layer on all PEs; cycles of the slowest."""
        device, die = self.device, share.die
        programs = kernels.attend(self.placed[die][2][-1], share.act, share.spans,
                                  pes=device.pes, shape=SHAPE, rule=self.rule, **options)
        device.launch(die, programs, stream=die).wait()
        words = counters.read_each(device, die, device.pes)
        return int(words[:, Unit.COMMAND_PROCESSOR, 4].max())

    def coded(self):
        """Layers as the golden model takes them: matrices as codes and scales."""
        return [replace(layer, **{name: packed[name].operand for name in MATRICES})
                for layer, packed in zip(self.weights.layers, self.packed, strict=True)]

    def golden(self, shares):
        """The same by the golden model: hidden states by stage and die, and vectors."""
        coded = self.coded()
        states, vectors = [[] for _ in range(len(coded) + 1)], {}
        for share in shares:
            x = golden.embed(self.weights.words[share.ids],
                             self.weights.positions[share.positions], self.weights.norm,
                             minilm.EPSILON)
            states[0].append(x)
            for i, layer in enumerate(coded):
                x = golden.encoder_layer(x, layer, share.spans, SHAPE.heads, minilm.EPSILON,
                                         self.arithmetic)
                states[i + 1].append(x)
            vectors.update(zip(share.numbers, golden.pool(x, share.spans), strict=True))
        return states, np.stack([vectors[n] for n in sorted(vectors)])


def cosine(a, b):
    """Cosine of each row of ``a`` to the same row of ``b``."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
