"""The main job as a measurement: accuracy in two weight formats, bit-exactness, speed, memory."""
import resource
from dataclasses import dataclass, replace

import numpy as np

from host.counters import STATES
from host.driver import Device
from host.embed import Encoder, cosine
from host.isa import Format, Rule, Unit
from host.models import minilm
from host.outcome import Outcome
from host.transport import open_package, package_rows

FORMATS = {"mxfp8": Format.E4M3, "mxfp4": Format.E2M1}
METRIC = {"mxfp8": "min_cosine_mxfp8", "mxfp4": "min_cosine_mxfp4w"}
LONG = " ".join(minilm.SENTENCES * 5)
MACS_PER_TOKEN = 6 * (4 * 384 * 384 + 2 * 384 * 1536)


@dataclass
class Attention:
    """The first phase of a layer: a ``Phase`` by whether the attention unit did it.

    ``projections``: cycles of the projections' products alone.
    """

    phases: dict
    projections: int

    @property
    def exact(self):
        return all(p.compared == p.equal for p in self.phases.values())

    @property
    def speedup(self):
        """Ratio of what attention adds to the projections, without the unit and with it."""
        without, with_unit = (self.phases[fused].cycles - self.projections
                              for fused in (False, True))
        return without / with_unit

    def metrics(self, suffix=""):
        """Cycles of both ways, and their ratios where there are two."""
        metrics = {"projection_cycles": self.projections,
                   "attention_phase_cycles_without_unit": self.phases[False].cycles}
        if True in self.phases:
            cycles = self.phases[True].cycles
            metrics |= {"attention_phase_cycles": cycles,
                        "attention_phase_speedup": self.phases[False].cycles / cycles,
                        "attention_speedup": self.speedup}
        return {name + suffix: value for name, value in metrics.items()}


@dataclass
class Report:
    """Everything that the main job prints and draws."""

    outcome: Outcome
    texts: list
    similarity: np.ndarray
    reference: np.ndarray
    cosines: np.ndarray
    layers: list        # per stage: elements compared, elements equal
    totals: object
    statistics: dict
    attention: Attention
    timeline: object = None


def macs(ids):
    """Useful MACs of the encoder for tokenised texts: matrices, scores, weighted sums."""
    return sum(len(i) * MACS_PER_TOKEN + 6 * 2 * len(i) ** 2 * 384 for i in ids)


def compare(result, golden):
    """Elements compared and equal, stage by stage."""
    return [(sum(x.size for x in mine), sum(int((x == y).sum()) for x, y in
                                            zip(mine, theirs, strict=True)))
            for mine, theirs in zip(result.states, golden, strict=True)]


def job(options, texts=minilm.SENTENCES, weights="mxfp8", *, resident=True, record=False,
        fused=None):
    """Run the main job once, and compare it with the golden model and with FP32.

    Then a layer's projections and attention run alone, with the attention unit and without it.
    ``fused`` as in :class:`host.embed.Encoder`.
    """
    ids = minilm.tokenise(texts)
    parameters = minilm.load()
    with open_package(options, record=record) as transport:
        device = Device(transport)
        encoder = Encoder(device, parameters, weight_format=FORMATS[weights],
                          weight_rule=Rule.EVEN, rule=Rule.RCEIL, resident=resident,
                          fused=fused)
        result = encoder.run(ids, progress=lambda done, total: options.step(
            done, total + 2, f"layers on the package ({weights} weights)"))
        statistics = transport.statistics()
        timeline = transport.timeline() if record else None
        attention = phases(encoder, result)
        peak = peak_memory_mb(transport)
    stages = len(result.states) + 3
    options.step(stages - 1, stages, "golden model")
    states, vectors = encoder.golden(result.shares)
    reference = np.stack([minilm.reference(parameters, i)[0] for i in ids])
    options.step(stages, stages, "done")
    layers = compare(result, states)
    layers.append((vectors.size, int((result.vectors.view(np.uint32) == vectors).sum())))
    cosines = cosine(result.vectors, reference)
    outcome = Outcome("embed", options.package)
    useful = macs(ids)
    seconds = statistics["seconds"]
    megahertz = encoder.device.configuration.core_megahertz
    outcome.metrics = {
        METRIC[weights]: cosines.min(), "cycles": result.cycles,
        "microseconds": result.cycles / megahertz, "useful_macs_per_cycle": useful / result.cycles,
        "simulated_khz": statistics["cycles"] / seconds / 1e3,
        "mac_evals_per_second": useful / seconds, "peak_memory_mb": peak,
        "elements_compared": sum(n for n, _ in layers),
        **{f"{unit.name.lower()}_busy": result.counters.fraction(unit, STATES[0])
           for unit in Unit if unit != Unit.COMMAND_PROCESSOR}}
    outcome.checks = {"bit_exact": all(n == equal for n, equal in layers)
                      and attention.exact}
    outcome.metrics |= attention.metrics()
    outcome.config = {"texts": len(ids), "tokens": sum(len(i) for i in ids), "weights": weights,
                      "activations": "mxfp8", "weight_rule": "EVEN", "activation_rule": "RCEIL",
                      "parameters_resident": resident, "megahertz": megahertz,
                      "dies": len(device.dies), "pes": len(device.dies) * len(device.pes),
                      "attention_unit": encoder.probabilities is not None}
    v = result.vectors.astype(np.float64)
    return Report(outcome, list(texts), v @ v.T, reference @ reference.T, cosines, layers,
                  result.counters, statistics, attention, timeline)


def phases(encoder, result):
    """Projections and attention of a layer alone, each way that the package has."""
    ways = (True, False) if encoder.device.configuration.attention else (False,)
    return Attention({fused: encoder.attend(result, fused=fused) for fused in ways},
                     encoder.project(result))


def long_text(options):
    """Projections and attention of one layer over a long text on each die, both ways."""
    parameters = minilm.load()
    parameters = replace(parameters, layers=parameters.layers[:1])
    options.step(0, 1, f"attention over a text of {len(LONG.split())} words")
    with open_package(options) as transport:
        device = Device(transport)
        encoder = Encoder(device, parameters, weight_rule=Rule.EVEN, rule=Rule.RCEIL)
        ids = minilm.tokenise([LONG] * len(device.dies))
        attention = phases(encoder, encoder.run(ids))
    options.step(1, 1, "done")
    return attention, len(ids[0])


def peak_memory_mb(transport):
    """Largest resident memory of this process and its workers [MB]."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return own / 1000 + transport.worker_memory_mb()


COMPARED = ("cycles", "microseconds", "useful_macs_per_cycle", "dot_busy", "elements_compared")


def across(options, texts=minilm.SENTENCES, weights="mxfp8", **more):
    """The main job on each package: reports by package, and one outcome.

    A package without MX4 gets its weights in MXFP8; ``more`` as in :func:`job`.
    """
    reports = {}
    for name, row in package_rows().items():
        form = weights if row["configured_MX4_TFLOPS"] else "mxfp8"
        reports[name] = job(replace(options, package=name), texts, form, **more)
    outcome = Outcome("embed_packages", "all")
    for name, report in reports.items():
        one = report.outcome
        outcome.metrics |= {f"{name}_{key}": one.metrics[key] for key in COMPARED}
        outcome.metrics[f"{name}_min_cosine"] = float(report.cosines.min())
        outcome.checks[f"{name}_bit_exact"] = one.checks["bit_exact"]
        outcome.config |= {f"{name}_{key}": one.config[key]
                           for key in ("weights", "dies", "pes", "megahertz")}
    outcome.config |= {key: one.config[key] for key in ("texts", "tokens", "activations")}
    return reports, outcome


def run_packages(options):
    """The main job on all packages."""
    return across(options)[1]


def run(options):
    """Both weight formats, and without the attention unit; the first's figures stand for the run.

    ``_long``: one text of ``long_tokens`` tokens on each die.
    """
    first = job(options, weights="mxfp8").outcome
    second = job(options, weights="mxfp4").outcome
    third = job(options, weights="mxfp8", fused=False).outcome
    attention, tokens = long_text(options)
    first.metrics[METRIC["mxfp4"]] = second.metrics[METRIC["mxfp4"]]
    first.metrics["cycles_mxfp4w"] = second.metrics["cycles"]
    first.metrics["cycles_without_attention_unit"] = third.metrics["cycles"]
    first.metrics |= attention.metrics("_long")
    first.metrics["peak_memory_mb"] = max(o.metrics["peak_memory_mb"]
                                          for o in (first, second, third))
    first.checks["bit_exact"] = (all(o.checks["bit_exact"] for o in (first, second, third))
                                 and attention.exact)
    first.config["long_tokens"] = tokens
    return first
