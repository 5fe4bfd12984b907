"""Exported engines against torch: time of one inference, and what holding several costs.

Time: the reference policy on ONNX Runtime in every precision, in torch eager in float32 and in
torch on INT4 weights; all take turns on the same requests. ``speedup`` is over torch in float32.
Memory: every choice of engines in a process of its own, loaded and run at each of its widths;
``held_mb`` is how far its resident memory has grown, ``peak_mb`` its peak (1 MB is 1e6 bytes).
An engine holds its own weights, torch's INT4 weights serve all widths.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.bench.policy import peak_memory_mb, requests
from ros_vla_accel.contracts import Policy
from ros_vla_accel.engines import exported
from ros_vla_accel.engines.check import random_observation
from ros_vla_accel.engines.export import ExportConfig, export
from ros_vla_accel.policies import reference

STAGES = ("vision", "backbone", "head", "total")
PRECISIONS = ("fp32", "w8a8", "w4a16", "w4a8", "fp16")
TARGETS = {"speedup_fp32": 1.0}
"""Smallest values wanted, at one thread and batch one."""
WARM_UP = 2


@dataclass(frozen=True)
class Arm:
    """A policy at one width. engine: precisions that are loaded, () for torch."""

    bits: int
    engine: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)

    def load(self, folder: str, threads: int) -> Policy:
        if self.engine:
            return exported(folder, precisions=self.engine, threads=threads, **self.arguments)
        return reference(threads=threads, **self.arguments)


TIMED = {
    "torch fp32": Arm(16),
    "torch w4a16": Arm(16, arguments={"quantize": "w4ax"}),
    "torch w4a8": Arm(8, arguments={"quantize": "w4ax"}),
    "ort fp32": Arm(16, ("fp32",)),
    "ort fp32, fixed shapes": Arm(16, ("fp32",), {"shapes": "1"}),
    "ort fp16": Arm(16, ("fp16",)),
    "ort w8a8": Arm(8, ("fp32", "w8a8")),
    "ort w4a16": Arm(16, ("w4a16",)),
    "ort w4a8": Arm(8, ("fp32", "w4a8")),
}
HELD = {
    "torch fp32": TIMED["torch fp32"],
    "torch, INT4 weights: 2, 4, 8, 16 bits": TIMED["torch w4a8"],
    "ort fp32": TIMED["ort fp32"],
    "ort w4a16": TIMED["ort w4a16"],
    "ort w4a16 and w4a8": Arm(8, ("w4a16", "w4a8")),
    "ort fp32 and w4a8": TIMED["ort w4a8"],
    "ort fp32 and w8a8": TIMED["ort w8a8"],
}


def timing(
    folder: str, arms: Sequence[str], threads: int, batch: int, count: int
) -> list[dict[str, Any]]:
    """Milliseconds per stage of every arm and turn. Arms of fixed shapes run at batch one."""
    torch.set_num_threads(threads)
    policies = {name: TIMED[name].load(folder, threads) for name in arms}
    asked = requests(policies["torch fp32"], batch)
    rows = []
    for turn in track(range(WARM_UP + count), f"{threads} threads, batch {batch}", transient=True):
        for name, policy in policies.items():
            wanted = [replace(r, activation_bits=TIMED[name].bits) for r in asked]
            start = time.perf_counter()
            timings = policy.infer(wanted)[0].timings_s
            total = time.perf_counter() - start
            if turn >= WARM_UP:
                stages = {f"{s}_ms": 1e3 * timings.get(s, np.nan) for s in STAGES[:-1]}
                row = {"arm": name, "threads": threads, "batch": batch, "run": turn}
                rows.append({**row, **stages, "total_ms": 1e3 * total})
    return rows


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell a process's resident memory (VmRSS)")


def held(folder: str, name: str) -> dict[str, Any]:
    """Memory of one choice, in a process that has loaded nothing before."""
    import onnxruntime  # noqa: F401  # Libraries count for no arm.

    torch.set_num_threads(1)
    torch.randn(64, 64) @ torch.randn(64, 64)
    resident, peak = _resident_mb(), peak_memory_mb()
    policy = HELD[name].load(folder, 1)
    request = requests(policy, 1)[0]
    for bits in policy.spec.widths * 3:
        policy.infer([replace(request, activation_bits=bits)])
    return {
        "memory": name,
        "widths": list(policy.spec.widths),
        "held_mb": _resident_mb() - resident,
        "peak_mb": peak_memory_mb() - peak,
    }


def switch_us(policy: Any, count: int) -> list[float]:
    """What taking another width costs at the start of a pass."""
    taken = []
    for index in range(count):
        start = time.perf_counter_ns()
        with policy.model.inference(policy.spec.widths[index % len(policy.spec.widths)]):
            taken.append((time.perf_counter_ns() - start) / 1e3)
    return taken


def make_engines(folder: Path) -> None:
    """All precisions. Times do not depend on the scales, so that these come from noise."""
    policy = reference(threads=1)
    seen = [random_observation(policy.spec, seed) for seed in range(4)]
    export(policy, folder, ExportConfig(PRECISIONS, batches=(1,)), seen)


def run(folder: str, threads: Sequence[int], batches: Sequence[int], count: int) -> Result:
    """count: timed turns of every number of threads and batch size."""
    context = get_context("spawn")
    rows: list[dict[str, Any]] = []
    for number in threads:
        for batch in batches:
            arms = [n for n, arm in TIMED.items() if batch == 1 or "shapes" not in arm.arguments]
            # A process each: OpenMP and ONNX Runtime keep their threads.
            with ProcessPoolExecutor(1, context) as process:
                rows += process.submit(timing, folder, arms, number, batch, count).result()
    memory = []
    for name in track(HELD, "memory", transient=True):
        with ProcessPoolExecutor(1, context) as process:
            memory.append(process.submit(held, folder, name).result())
    medians: dict[str, Any] = {}
    for key in dict.fromkeys((r["arm"], r["threads"], r["batch"]) for r in rows):
        times = [r["total_ms"] for r in rows if (r["arm"], r["threads"], r["batch"]) == key]
        medians[f"{key[0]}; {key[1]} threads; batch {key[2]}"] = spread(times)
    first = {
        name: medians[f"{name}; {threads[0]} threads; batch {batches[0]}"]["median"]
        for name in TIMED
        if f"{name}; {threads[0]} threads; batch {batches[0]}" in medians
    }
    base = first["torch fp32"]
    summary = {
        f"speedup_{name.removeprefix('ort ').replace(', ', '_').replace(' ', '_')}": base / median
        for name, median in first.items()
        if name.startswith("ort")
    }
    summary["w4a8_over_torch_w4a8"] = first["torch w4a8"] / first["ort w4a8"]
    switches = switch_us(exported(folder, precisions=["fp32", "w8a8"]), 5000)
    summary |= {
        "switch_p50_us": percentile(switches, 50),
        "switch_p99_us": percentile(switches, 99),
    }
    by_name = {row["memory"]: row["held_mb"] for row in memory}
    summary["held_fp32_and_w4a8_over_torch_int4"] = (
        by_name["ort fp32 and w4a8"] / by_name["torch, INT4 weights: 2, 4, 8, 16 bits"]
    )
    config = {"count": count, "spread_total_ms": medians, "targets": TARGETS}
    return Result("engines", config, [*rows, *memory], summary)


def show(result: Result) -> None:
    """Prints one line per arm, threads and batch, and one per choice of engines."""
    console = Console()
    title = "bench engines: ms of one inference, medians of turns"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))  # It fits 80 columns so.
    for column in ("arm", "threads", "batch", *STAGES, "range", "x"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    timed = [row for row in result.rows if "arm" in row]
    keys = ("arm", "threads", "batch")
    for key in dict.fromkeys(tuple(r[k] for k in keys) for r in timed):
        same = [r for r in timed if tuple(r[k] for k in keys) == key]
        base = [
            r for r in timed if (r["arm"], r["threads"], r["batch"]) == ("torch fp32", *key[1:])
        ]
        medians = [float(np.median([r[f"{s}_ms"] for r in same])) for s in STAGES]
        totals = [r["total_ms"] for r in same]
        ratio = float(np.median([r["total_ms"] for r in base])) / medians[-1]
        cells = [*(f"{m:.1f}" for m in medians), f"{min(totals):.0f}-{max(totals):.0f}"]
        table.add_row(*map(str, key), *cells, f"{ratio:.2f}")
    console.print(table)
    table = Table(title="memory of the policies that a process holds", box=SIMPLE)
    for column in ("engines", "widths", "held MB", "peak MB"):
        table.add_column(column, justify="left" if column == "engines" else "right")
    for row in result.rows:
        if "memory" in row:
            widths = ", ".join(map(str, row["widths"]))
            table.add_row(row["memory"], widths, f"{row['held_mb']:.0f}", f"{row['peak_mb']:.0f}")
    console.print(table)
    for key, value in result.summary.items():
        wanted = f"  (target >= {TARGETS[key]:g})" if key in TARGETS else ""
        console.print(f"{key}: {value:.3g}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench engines", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one thread, batch one, few turns")
    parser.add_argument("--threads", type=int, nargs="+", help="default 1 2, quick 1")
    parser.add_argument("--batches", type=int, nargs="+", help="default 1 8, quick 1")
    parser.add_argument("--count", type=int, help="turns (default 25, quick 5)")
    parser.add_argument(
        "--engine-dir",
        help=f"an export of {', '.join(PRECISIONS)} with --batch 1; made anew by default",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    threads = options.threads or ([1] if options.quick else [1, 2])
    batches = options.batches or ([1] if options.quick else [1, 8])
    count = options.count or (5 if options.quick else 25)
    with tempfile.TemporaryDirectory() as made:
        folder = options.engine_dir or os.path.join(made, "engines")
        if not options.engine_dir:
            make_engines(Path(folder))
        result = run(folder, threads, batches, count)
    show(result)
    if options.json:
        result.write(options.json)
    return 0
