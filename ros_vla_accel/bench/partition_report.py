"""Rows, tables and the plot of ``bench partition``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile
from ros_vla_accel.experiments.offloading import Episode
from ros_vla_accel.experiments.statistics import paired_difference

TARGETS: dict[str, tuple[str, float]] = {
    "speedup_over_entropy_noise": (">=", 1.73),
    "speedup_over_edge_only": (">=", 3.5),
    "success_minus_cloud_only": (">=", -0.005),
    "success_minus_cloud_only_low": (">=", -0.03),
    "reuse_success_minus_rapid": (">=", -0.005),
    "reuse_success_minus_rapid_low": (">=", -0.03),
    "replans_saved": (">=", 0.30),
    "age_over_best_other": ("<=", 1.0),
    "trigger_overhead": ("<=", 0.02),
}


def row_of(
    condition: str,
    round_trip_ms: int,
    strategy: str,
    episodes: Sequence[Episode],
    cloud_only: Sequence[Episode] | None,
) -> dict[str, Any]:
    """One cell of one strategy. cloud_only: the episodes of cloud only in the same scenes."""
    latency_ms = [1e3 * s for e in episodes for s in e.latency_s]
    age_ms = [1e3 * s for e in episodes for s in e.age_s]
    moved_s = sum(e.steps for e in episodes) * 0.05
    successes = [e.success for e in episodes]
    row: dict[str, Any] = {
        "condition": condition,
        "round_trip_ms": round_trip_ms,
        "strategy": strategy,
        "episodes": len(episodes),
        "success_rate": float(np.mean(successes)),
        "time_s": moved_s / len(episodes),
        "latency_ms_mean": float(np.mean(latency_ms)) if latency_ms else float("nan"),
        "latency_ms_p99": percentile(latency_ms, 99),
        "age_ms_mean": float(np.mean(age_ms)) if age_ms else float("nan"),
        "age_ms_p99": percentile(age_ms, 99),
        "held_s": sum(e.held_steps for e in episodes) * 0.05 / len(episodes),
        "edge_share_of_time": sum(e.edge_s for e in episodes) / moved_s,
        "replans_per_s": sum(e.replans for e in episodes) / moved_s,
    }
    for name in ("replans", "edge_inferences", "cloud_calls", "fallbacks", "bytes_sent"):
        row[name] = sum(getattr(e, name) for e in episodes) / len(episodes)
    row["preemptions"] = sum(e.preemptions for e in episodes) / len(episodes)
    row["edge_s"] = sum(e.edge_s for e in episodes) / len(episodes)
    if cloud_only is not None:
        found = paired_difference(successes, [e.success for e in cloud_only])
        row |= dict(zip(("minus_cloud_only", "low", "high"), found, strict=True))
    row["seeds"] = [e.seed for e in episodes]
    row["outcomes"] = [int(s) for s in successes]
    row["latency_ms_percentiles"] = [percentile(latency_ms, p) for p in range(101)]
    return row


def show(result: Result) -> None:
    """Prints a table per condition and round trip, and what the goals are about."""
    console = Console()
    for where in dict.fromkeys((r["condition"], r["round_trip_ms"]) for r in result.rows):
        table = Table(title=f"{where[0]}, round trip {where[1]} ms", box=SIMPLE)
        table.pad_edge, table.collapse_padding, table.padding = False, True, (0, 1, 0, 0)
        columns = ("strategy", "%", "time", "latency", "age", "held", "asks", "pre", "cloud")
        for column in (*columns, "edge"):
            justify: Any = "left" if column == "strategy" else "right"
            table.add_column(column, justify=justify, no_wrap=True)
        for row in result.rows:
            if (row["condition"], row["round_trip_ms"]) == where:
                table.add_row(*_cells(row))
        console.print(table)
    console.print(
        "%: success; per episode in s: time, held (no row), edge (compute); in ms, mean/p99:\n"
        "latency of a replan, age of a row's observation; asks: replans, pre: preemptions"
    )
    for key, value in result.summary.items():
        sign, target = TARGETS.get(key, ("", 0.0))
        console.print(f"{key}: {value:.4g}" + (f"  (target {sign} {target:g})" if sign else ""))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["strategy"],
        f"{100 * row['success_rate']:.0f}",
        f"{row['time_s']:.1f}",
        f"{row['latency_ms_mean']:.0f}/{row['latency_ms_p99']:.0f}",
        f"{row['age_ms_mean']:.0f}/{row['age_ms_p99']:.0f}",
        f"{row['held_s']:.2f}",
        f"{row['replans']:.1f}",
        f"{row['preemptions']:.1f}",
        f"{row['cloud_calls']:.1f}",
        f"{row['edge_s']:.2f}",
    ]


def plot(result: Result, path: str) -> None:
    """Share of replans answered within a time, per round trip, all conditions together."""
    trips = sorted({row["round_trip_ms"] for row in result.rows})
    names = list(dict.fromkeys(row["strategy"] for row in result.rows))
    figure = Figure(figsize=(4.6 * len(trips) + 1.4, 3.4), layout="constrained")
    axes = figure.subplots(1, len(trips), sharey=True, squeeze=False)[0]
    for axis, trip in zip(axes, trips, strict=True):
        for index, name in enumerate(names):
            rows = [r for r in result.rows if r["strategy"] == name]
            # Edge only is measured at one round trip, and the same at any.
            here = [r for r in rows if r["round_trip_ms"] == trip or r["cloud_calls"] == 0]
            if here:
                values = np.sort(np.concatenate([r["latency_ms_percentiles"] for r in here]))
                shares = np.linspace(0, 100, len(values))
                axis.plot(values, shares, label=name, color=f"C{index}")
        axis.set(title=f"round trip {trip} ms", xlabel="latency of a replan, ms", xlim=(0, 900))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("replans, %")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=110)
