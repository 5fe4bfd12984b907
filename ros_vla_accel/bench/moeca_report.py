"""The front of time against error: who is on it, a table, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ros_vla_accel.bench.common import Result

TOLERANCE = 1.05
"""A front so much behind in time still counts as level."""
COLOURS = {
    "none": "#000000",
    "fewer steps": "#7f7f7f",
    "midpoint": "#8c6d31",
    "heun": "#c49c94",
    "dpm++ 2m": "#8c6d31",
    "fora": "#1f77b4",
    "taylor 1": "#2ca02c",
    "taylor 2": "#98df8a",
    "tokens": "#9467bd",
    "first block": "#17becf",
    "moeca": "#d62728",
}


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that no other beats in both time and error, by time."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["ms"], r["error_mean"])):
        if not kept or row["error_mean"] < kept[-1]["error_mean"]:
            kept.append(row)
    return kept


def groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows that can be compared: same objective, plain steps and threads."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = row["objective"], row["reference_steps"], row["threads"]
        found.setdefault(key, []).append(row)
    return found


def front_behind(rows: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, float]]:
    """Families that beat MoECa's front somewhere by more than ``TOLERANCE``.

    For each setting of a family, faster than the plain head, MoECa's fastest setting of no larger
    error is looked up; the plain head itself counts as one, since MoECa with a budget of 1 is it.
    Returns the families, and per family the worst ratio of those times: above 1, MoECa is slower.
    """
    worst: dict[str, float] = {}
    for same in groups(rows).values():
        plain = next(row for row in same if row["family"] == "none")
        own = [row for row in same if row["family"] in ("moeca", "none")]
        for row in same:
            if row["family"] in ("moeca", "none") or row["ms"] >= plain["ms"]:
                continue
            time = min(r["ms"] for r in own if r["error_mean"] <= row["error_mean"])
            worst[row["family"]] = max(worst.get(row["family"], 0.0), time / row["ms"])
    return [name for name, ratio in worst.items() if ratio > TOLERANCE], worst


def draw_front(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Time against error of all contenders as PNG, a panel per steps and threads.

    ImportError without matplotlib (the extra ``train``).
    """
    from matplotlib.figure import Figure

    panels = groups(rows)
    figure = Figure(figsize=(6.5 * len(panels), 5.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, ((objective, steps, threads), same) in zip(axes, panels.items(), strict=True):
        for family in dict.fromkeys(row["family"] for row in same):
            points = [r for r in same if r["family"] == family and r["error_mean"] > 0]
            x, y = [r["ms"] for r in points], [r["error_mean"] for r in points]
            colour = COLOURS.get(family, "#bcbd22")
            if points:
                axis.scatter(x, y, s=22, color=colour, label=family)
            line = front(points)
            axis.plot(
                [r["ms"] for r in line], [r["error_mean"] for r in line], color=colour, alpha=0.5
            )
        best = front([r for r in same if r["error_mean"] > 0])
        axis.plot(
            [r["ms"] for r in best],
            [r["error_mean"] for r in best],
            color="#000000",
            linewidth=0.8,
            linestyle="--",
            label="front of all",
        )
        plain = next(r for r in same if r["family"] == "none")
        axis.axvline(plain["ms"], color="#000000", linewidth=0.8, alpha=0.4)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{objective}, {steps} steps, {threads} thread(s)", fontsize=10)
        axis.set_xlabel("head per chunk, ms (line: the plain head)")
        axis.set_ylabel("mean distance from the plain head's chunk, normalized")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def show(result: Result) -> None:
    """Prints one line per contender; a star marks the front of its group."""
    console = Console()
    if "error_mean" not in result.rows[0]:
        table = Table(title=f"bench {result.name} ({result.config['clock']})", box=None)
        for column in result.rows[0]:
            table.add_column(column, justify="right")
        for row in result.rows:
            cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
            table.add_row(*cells)
        console.print(table)
    for (objective, steps, threads), same in groups(
        [row for row in result.rows if "error_mean" in row]
    ).items():
        table = Table(
            title=f"{objective}, {steps} steps, {threads} thread(s); {result.config['clock']}",
            caption="*: on the front of time against mean error",
            box=None,
            padding=(0, 1, 0, 0),
        )
        for column in ("", "method", "setting", "ms", "speed-up", "mean", "p99", "GFLOP"):
            table.add_column(
                column, justify="left" if column in ("method", "setting") else "right"
            )
        best = [id(row) for row in front(same)]
        for row in same:
            table.add_row(
                "*" if id(row) in best else "",
                row["family"],
                row["setting"],
                f"{row['ms']:.1f}",
                f"{row['speedup']:.2f}",
                f"{row['error_mean']:.4f}",
                f"{row['error_p99']:.3f}",
                f"{row['gflop']:.2f}",
            )
        console.print(table)
    for key, value in result.summary.items():
        console.print(f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}")
