"""What one inference of the reference policy costs: time of each stage, and memory.

Sizes: ``shipped``, the trained policy, and ``large``, about 100 M parameters with random weights,
which says nothing about success. Every size and number format has a process of its own, so that
its memory is its own; the processes take turns, and the medians are those over all turns.
``weights_mb`` are the parameters, ``peak_mb`` is how far the process's peak memory, over all
batches and threads, lies above what it had before the policy was loaded (1 MB is 1e6 bytes).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.contracts import InferenceRequest, Observation, Policy

SIZES = ("shipped", "large")
DTYPES = ("float32", "bfloat16")
BATCHES = (1, 8)
STAGES = ("vision", "backbone", "head", "total")
WARM_UP = 3


def requests(policy: Policy, count: int) -> list[InferenceRequest]:
    """Requests with random images and joints, each another."""
    rng, spec = np.random.default_rng(0), policy.spec
    return [
        InferenceRequest(
            Observation(
                {
                    c.name: rng.integers(0, 255, (c.height, c.width, 3), dtype=np.uint8)
                    for c in spec.cameras
                },
                rng.standard_normal(len(spec.state_names)).astype(np.float32),
                "open the drawer",
                stamp_ns=0,
            ),
            request_id=i,
            episode_id=0,
            seed=i,
        )
        for i in range(count)
    ]


def peak_memory_mb() -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell a process's peak memory (VmHWM)")


def measure(size: str, dtype: str, threads: list[int], count: int) -> list[dict[str, Any]]:
    """Loads the policy in this process and times ``count`` inferences per batch and threads."""
    import torch

    from ros_vla_accel.policies import reference

    before_mb = peak_memory_mb()
    policy = reference(dtype=dtype, size=None if size == "shipped" else size)
    weights = [p.numel() * p.element_size() for p in policy.model.parameters()]
    rows = []
    for number in threads:
        torch.set_num_threads(number)
        for batch in BATCHES:
            asked = requests(policy, batch)
            times: dict[str, list[float]] = {stage: [] for stage in STAGES}
            for index in range(WARM_UP + count):
                timings = policy.infer(asked)[0].timings_s
                if index >= WARM_UP:
                    for stage in STAGES:
                        times[stage].append(1e3 * timings[stage])
            row = {
                "size": size,
                "random_weights": size != "shipped",
                "parameters_m": sum(p.numel() for p in policy.model.parameters()) / 1e6,
                "dtype": dtype,
                "threads": number,
                "batch": batch,
                "steps": policy.steps,
                "weights_mb": sum(weights) / 1e6,
            }
            for stage in STAGES:
                row[f"{stage}_ms_p50"] = percentile(times[stage], 50)
                row[f"{stage}_ms_p95"] = percentile(times[stage], 95)
            rows.append(row)
    peak_mb = peak_memory_mb() - before_mb
    return [{**row, "peak_mb": peak_mb} for row in rows]


def run(sizes: list[str], threads: list[int], count: int, repeats: int) -> Result:
    """Every repeat visits every size and number format."""
    turns = [(r, s, d) for r in range(repeats) for s in sizes for d in DTYPES]
    rows: list[dict[str, Any]] = []
    for repeat, size, dtype in track(turns, "processes", transient=True):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            measured = process.submit(measure, size, dtype, threads, count).result()
        rows += [{"run": repeat, **row} for row in measured]
    summary, spreads = {}, {}
    for size in sizes:
        for number in threads:
            key = f"{size}_ms_{number}_threads"
            spreads[key] = spread(
                [row["total_ms_p50"] for row in _same(rows, size, "float32", number, 1)]
            )
            summary[key] = spreads[key]["median"]
        full = [row for row in rows if (row["size"], row["dtype"]) == (size, "float32")]
        summary[f"{size}_weights_mb"] = full[0]["weights_mb"]
        summary[f"{size}peak_mb"] = max(row["peak_mb"] for row in full)
    config = {"count": count, "repeats": repeats, "spread": spreads}
    return Result("policy", config, rows, summary)


def _same(
    rows: list[dict[str, Any]], size: str, dtype: str, threads: int, batch: int
) -> list[dict[str, Any]]:
    wanted = (size, dtype, threads, batch)
    return [r for r in rows if (r["size"], r["dtype"], r["threads"], r["batch"]) == wanted]


def show(result: Result) -> None:
    """Prints one line per size, number format, threads and batch."""
    table = Table(
        title="bench policy",
        caption="ms: median, of the total p50 / p95; large has random weights",
        box=None,  # all of it fits into 80 columns
        padding=(0, 1, 0, 0),
    )
    for column in ("size", "dtype", "threads", "batch", *STAGES, "weights\nMB", "peak\nMB"):
        table.add_column(column, justify="left" if column in ("size", "dtype") else "right")
    keys = ("size", "dtype", "threads", "batch")
    for key in dict.fromkeys(tuple(row[k] for k in keys) for row in result.rows):
        same = _same(result.rows, *key)

        def median(name: str, rows: list[dict[str, Any]] = same) -> str:
            return f"{np.median([row[name] for row in rows]):.3g}"

        stages = (median(f"{stage}_ms_p50") for stage in STAGES[:-1])
        total = f"{median('total_ms_p50')} / {median('total_ms_p95')}"
        memory = (median(name) for name in ("weights_mb", "peak_mb"))
        table.add_row(*(str(k) for k in key), *stages, total, *memory)
    Console().print(table)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench policy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run instead of three")
    parser.add_argument("--size", choices=SIZES, help="only this one; both by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--count", type=int, help="inferences of each (default 30, quick 5)")
    parser.add_argument("--repeats", type=int, help="runs of everything (default 3, quick 1)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    count = options.count or (5 if options.quick else 30)
    repeats = options.repeats or (1 if options.quick else 3)
    sizes = [options.size] if options.size else list(SIZES)
    result = run(sizes, options.threads, count, repeats)
    show(result)
    if options.json:
        result.write(options.json)
    return 0
