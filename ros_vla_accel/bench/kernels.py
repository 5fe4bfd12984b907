"""INT4 linear layers against prepacked BF16 (oneDNN) and FP32, per shape and number of rows.

Everything that a layer does is timed: quantization of the activations, product, dequantization.
BF16 gets its weights in oneDNN's own layout, made for that number of rows; that is the baseline.
All kernels of a row take turns in one loop, in an order that rotates, each with weights of its
own: as in a model, whose other layers have passed through the caches since. A ratio is the
baseline's median over the kernel's: above 1, the kernel is faster. Widths 2, 4 and 8 share one
kernel on every processor known; they are timed apart to show it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result
from ros_vla_accel.quantization import W4AX, ActivationBits, W4AXLinear, kernels, native, packing

SHAPES = ((1024, 1024), (1024, 4096), (4096, 4096), (4096, 11008))
"""(K, N): inputs and outputs."""
ROWS = (1, 8, 32, 128, 512)
TARGETS = {
    **{"w4a8_over_bf16_m1": 4.0, "w4a8_over_bf16_m8": 2.0, "w4a8_over_bf16_m32": 1.2},
    **{"w4a8_over_bf16_m128": 1.3, "w4a8_over_bf16_m512": 1.3},
    **{f"w4a16_over_bf16_m{rows}": 0.9 for rows in ROWS},
}
"""Smallest ratios wanted."""


def prepacked(weight: torch.Tensor, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """BF16 product with weight (N, K) in oneDNN's layout for inputs (rows, K)."""
    held = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), rows)

    def linear(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, held, None, "none", [], "")

    return linear


def random_layer(inputs: int, outputs: int, group_size: int) -> W4AXLinear:
    """Packed bytes drawn at random: no time depends on their values."""
    weight = packing.empty(outputs, inputs, group_size, "cpu")
    weight.packed.random_(0, 256)
    weight.group_scale.random_(1, packing.LARGEST_GROUP_SCALE + 1)
    weight.channel_scale.fill_(1e-3)
    for panel in range(len(weight.packed)):  # All at once would need many times the layer.
        held = weight.packed, weight.group_scale, group_size
        whole = packing.integers(*held, slice(panel, panel + 1))
        at = slice(panel * packing.PANEL, (panel + 1) * packing.PANEL)
        weight.row_sum[at] = whole.sum(1, dtype=torch.int32)
    bytes_before = 2 * inputs * outputs
    return W4AXLinear(inputs, outputs, group_size, ActivationBits(), weight, None, bytes_before)


def measure(
    layers: dict[int, W4AXLinear],
    weight: torch.Tensor,
    rows: int,
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds of every contender, taking turns. layers: one per width."""
    x = torch.randn(rows, weight.shape[1])
    half, plain = x.bfloat16(), weight.float()
    bf16 = prepacked(weight, rows)
    contenders: dict[str, Callable[[], Any]] = {"bf16": lambda: bf16(half)}
    for bits, layer in layers.items():
        kernel = kernels.choose("cpu", bits, rows)
        contenders[f"w4a{bits}"] = lambda k=kernel, w=layer, b=bits: k.run(w, half, b)
    contenders["fp32"] = lambda: torch.nn.functional.linear(x, plain)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(repeats + 2):
        # Not always in the same order: whoever follows the largest weights starts with the
        # coldest caches.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            call = contenders[name]
            # FP32 takes ten times as long from 32 rows on; a few turns tell as much.
            if name == "fp32" and turn % 4:
                continue
            start = clock()
            call()
            if turn >= 2 or (name == "fp32" and turn):
                times[name].append(clock() - start)
            elif name == "fp32":
                times[name] = []
    return times


def run(repeats: int, group_size: int, cpu_time: bool) -> Result:
    """repeats: turns per row, fewer where a turn is long."""
    before = torch.get_num_threads()
    if cpu_time:
        torch.set_num_threads(1)
    clock = time.thread_time if cpu_time else time.perf_counter
    found: list[dict[str, Any]] = []
    with torch.inference_mode():
        for inputs, outputs in track(SHAPES, "shapes", transient=True):
            layers = {b: random_layer(inputs, outputs, group_size) for b in (8, 4, 2, 16)}
            weight = 0.02 * torch.randn(outputs, inputs, dtype=torch.bfloat16)
            for rows in ROWS:
                work = rows * inputs * outputs / (32 * 4096 * 4096)
                turns = max(9, round(repeats / max(1.0, work)))
                times = measure(layers, weight, rows, turns, clock)
                row: dict[str, Any] = {"k": inputs, "n": outputs, "rows": rows, "turns": turns}
                base = float(np.median(times["bf16"]))
                for name, seconds in times.items():
                    low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1e3
                    row |= {f"{name}_ms": middle, f"{name}_iqr_ms": [low, high]}
                    row[f"{name}_over_bf16"] = base * 1e3 / middle
                row["kernel_8"] = kernels.choose("cpu", 8, rows).name
                row["kernel_16"] = kernels.choose("cpu", 16, rows).name
                found.append(row)
    threads = torch.get_num_threads()
    torch.set_num_threads(before)
    loaded = native.library()
    summary = {
        f"{name}_over_bf16_m{rows}": min(
            row[f"{name}_over_bf16"] for row in found if row["rows"] == rows
        )
        for name in ("w4a8", "w4a16", "w4a4", "w4a2")
        for rows in ROWS
    }
    return Result(
        name="kernels",
        config={
            "repeats": repeats,
            "group_size": group_size,
            "threads": threads,
            "clock": "processor time of one thread" if cpu_time else "elapsed time",
            "paths": list(loaded.paths) if loaded else [],
            "torch": torch.__version__,
            "targets": TARGETS,
        },
        rows=found,
        summary=summary,
    )


def show(result: Result) -> None:
    """Prints the medians in ms and, in brackets, the ratios to prepacked BF16."""
    table = Table(title=f"bench kernels ({result.config['clock']}; ms, BF16 / kernel)")
    names = ("w4a8", "w4a4", "w4a2", "w4a16", "fp32")
    for column in ("K x N", "rows", "kernels", "bf16", *names):
        table.add_column(column, justify="right")
    for row in result.rows:
        cells = (f"{row[f'{n}_ms']:.3g} ({row[f'{n}_over_bf16']:.2f})" for n in names)
        table.add_row(
            f"{row['k']}x{row['n']}",
            str(row["rows"]),
            f"{row['kernel_8']}, {row['kernel_16']}",
            f"{row['bf16_ms']:.3g}",
            *cells,
        )
    console = Console()
    console.print(table)
    for key, value in result.summary.items():
        wanted = f"  (target >= {TARGETS[key]:g})" if key in TARGETS else ""
        console.print(f"{key}: {value:.3g}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--repeats", type=int, help="turns (default 200, quick 30)")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time of one thread, for a machine that others keep busy",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    repeats = options.repeats or (30 if options.quick else 200)
    result = run(repeats, W4AX(options.group_size).group_size, options.cpu_time)
    show(result)
    if options.json:
        result.write(options.json)
    return 0
