"""The table of measured figures in README.md, made from benchmarks/*.json."""
import json
from pathlib import Path

from host.report import number

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SHOWN = {   # metrics shown, by bench, and the figure to reach
    "gemm": {"utilization_steady": "at least 0.97", "utilization_end_to_end": "at least 0.90"},
    "gemm_layers": {"utilization_min": "at least 0.82", "utilization_mean": "at least 0.92"},
    "ffn": {"utilization": "at least 0.90", "utilization_pe": "at least 0.90"},
    "embed": {"min_cosine_mxfp8": "at least 0.99", "min_cosine_mxfp4w": "at least 0.94",
              "peak_memory_mb": "at most 4,000", "cycles": "",
              "cycles_without_attention_unit": "", "attention_phase_speedup": "",
              "attention_speedup": "", "attention_phase_speedup_long": "",
              "attention_speedup_long": ""},
    "embed_packages": {f"mtia{n}_{metric}": "" for n in (300, 400, 450, 500)
                       for metric in ("cycles", "useful_macs_per_cycle")},
    "launch": {"launch_cycles": "", "launch_us": "below 1", "replace_cycles": "",
               "replace_us": "below 0.5"},
    "simspeed": {"macs_per_yardstick_cycle": "at least 400", "mac_evals_per_second": "",
                 "cycles_per_second": "", "build_seconds": ""},
    "attention": {"utilization": "at least 0.95", "utilization_causal": "at least 0.90",
                  "utilization_head64": "at least 0.90", "utilization_package": "",
                  "max_abs_err": "at most 3.0e-4", "max_abs_err_bf16_p": "",
                  "row_sum_err": "at most 1e-3", "outlier_max_abs_err": "",
                  "fp32_outlier_max_abs_err": "", "exp2_max_rel_err": "",
                  "reciprocal_max_rel_err": ""},
    "multicast": {"fetch_reduction": "6, the readers", "row_sram_fetch_reduction": "3",
                  "column_sram_fetch_reduction": "2", "all_hbm_fetch_reduction": "6",
                  "alone_sram_cycles": "", "all_sram_cycles": "", "alone_hbm_cycles": "",
                  "all_hbm_cycles": ""},
    "noc": {"saturation_throughput": "at least 0.85", "saturation_throughput_4x4": "",
            "saturation_throughput_8x8": "", "saturation_throughput_2x2": "",
            "saturation_throughput_2x3": "", "saturation_throughput_1x5": "",
            "full_load_throughput_8x8": "", "latency_8x8_at_80_percent": "",
            "multicast_column_fetch_reduction": "", "simulation_ns_per_routed_flit": ""},
    "hbm": {"read_efficiency": "at least 0.97", "write_efficiency": "at least 0.97",
            "copy_efficiency": "at least 0.88", "copy_depth": "at most 128",
            "copy_turnaround_share": "", "random_64B_efficiency": "",
            "unloaded_latency_ns_open_row": "", "unloaded_latency_ns_closed_bank": "",
            "unloaded_latency_ns_other_row": "", "latency_ns_at_10_percent": "",
            "latency_ns_at_30_percent": "", "latency_ns_at_50_percent": "",
            "latency_ns_at_60_percent": "", "package_hbm_gb": "at least 512", "touched_mb": "",
            "peak_memory_mb": "at most 3,000"},
    "gemm_hbm": {"utilization_end_to_end": "at least 0.90", "utilization_steady": ""},
    "stream_add": {"hbm_fraction": "at least 0.94", "hbm_fraction_best": "",
                   "hbm_turnaround_share": "",
                   "hbm_row_share": "", "hbm_refresh_share": "", "hbm_idle_share": ""},
    "generations": {"hbm_450_over_400": "2", "hbm_500_over_450": "1.5", "hbm_500_over_300": "4.5",
                    "mx4_450_over_400": "1.75", "mx4_500_over_450": "1.43",
                    "compute_500_over_300": "25"},
    "attention_decode": {"kv_bandwidth_utilization": "at least 0.95", "split_speedup": ""},
    "allreduce": {"busbw_fraction": "at least 0.94", "large_cycles": "", "large_bytes": "",
                  "latency_small_us_2": "", "latency_small_us_8": "", "latency_program_us": "",
                  "latency_message_us": ""},
    "overlap": {"gemm_loss": "at most 0.005", "gemm_utilization": "", "gemm_cycles": "",
                "allreduce_cycles": "", "gemm_loss_reading_alone": "",
                "gemm_utilization_reading_alone": ""},
    "collectives": {f"longest_{kind}_{ranks}_cycles": "" for kind in ("all_reduce", "all_to_all")
                    for ranks in (2, 8)},
    "faults": {"none_cycles": "", "loss_1e-4_frames": "", "loss_1e-2_frames": "",
               "loss_1e-2_cycles": "", "reorder_cycles": "", "all_cycles": "", "flap_cycles": "",
               "restart_cycles": "", "frames_lost": "", "frames_corrupted": ""},
    "tp": {"cycles": "", "cycles_one_package": "", "speedup": "", "compute_cycles": "",
           "communication_cycles": "", "overlapped_cycles": "", "neither_cycles": "",
           "communication_hidden": "", "min_cosine": ""},
}


def table(folder=ROOT / "benchmarks"):
    """Markdown rows of every figure that was measured."""
    rows = ["| bench | metric | measured | to reach |", "|---|---|---|---|"]
    for bench, metrics in SHOWN.items():
        path = folder / f"{bench}.json"
        if not path.exists():
            continue
        outcome = json.loads(path.read_text())
        for metric, goal in metrics.items():
            value = number(outcome["metrics"][metric])
            rows.append(f"| `{bench}` | `{metric}` | {value} | {goal} |")
        checks = outcome["checks"]
        for check, holds in checks.items():
            if check.startswith("bit_exact_") and checks.get("bit_exact"):
                continue        # a part of it
            rows.append(f"| `{bench}` | check `{check}` | {str(holds).lower()} | true |")
    return "\n".join(rows)


def hbm_tables(folder=ROOT / "benchmarks"):
    """Markdown of what ``mxlet bench hbm`` found, for decision 9."""
    m = json.loads((folder / "hbm.json").read_text())["metrics"]
    shares = ("turnaround", "row", "group", "refresh", "idle")
    rows = [f"| | of the pin rate | refreshes given, owed | {' | '.join(shares)} |",
            "|---" * (3 + len(shares)) + "|"]
    for name, text in (("read", "sequential read"), ("write", "sequential write"),
                       ("copy", "copy line by line, at most 128 of each queued"),
                       ("copy_by_16", "copy by 16"), ("copy_by_64", "copy by 64"),
                       ("random_64B", "random lines of 64 bytes, read")):
        went = [f"{m[key]:.4f}" if (key := f"{name}_{share}_share") in m else ""
                for share in shares]
        rows.append(f"| {text} | {m[f'{name}_efficiency']:.3f} | {m[f'{name}_refreshes']:,.0f}, "
                    f"{m[f'{name}_refreshes_owed']:,.0f} | {' | '.join(went)} |")
    rows += ["", "| read that finds | takes, ns | by the formula of `HbmChannel`, ns |",
             "|---|---|---|"]
    rows += [f"| {text} | {m[f'unloaded_latency_ns_{name}']:.2f} | "
             f"{m[f'formula_latency_ns_{name}']:.2f} |" for name, text in (
                 ("open_row", "its row open"), ("closed_bank", "its bank closed"),
                 ("other_row", "another row open"))]
    rows += ["", "| random reads, of the pin rate | mean latency, ns | worst, ns |",
             "|---|---|---|"]
    rows += [f"| {load / 100:.2f} | {m[f'latency_ns_at_{load}_percent']:.0f} | "
             f"{m[f'worst_latency_ns_at_{load}_percent']:.0f} |" for load in (10, 30, 50, 60)]
    gigabytes, opened, touched, peak = (m[name] for name in (
        "package_hbm_gb", "opened_memory_mb", "touched_mb", "peak_memory_mb"))
    rows += ["", (f"Memory is sparse: a package with {gigabytes:.0f} GB of HBM takes {opened:,.0f} "
                  f"MB, and {peak:,.0f} MB when {touched:,.0f} MB of it were touched.")]
    return "\n".join(rows)


PLACES = {"README.md": table, "docs/decisions/0009-hbm-controller.md": hbm_tables}


def update(root=ROOT):
    """Write what was measured between the markers of every document that has some."""
    for name, content in PLACES.items():
        before, rest = (root / name).read_text().split(BEGIN)
        (root / name).write_text(f"{before}{BEGIN}\n{content()}\n{END}{rest.split(END)[1]}")
