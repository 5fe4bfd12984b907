"""Results of ``bench moeca``: the front of time against error, tables, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ros_vla_accel.bench.common import Result

TOLERANCE = 1.05
"""A front so much behind in time still counts as level."""
OWN = ("moeca", "moeca, lazy")
RIVALS = ("fora", "tokens", "taylor 1", "taylor 2", "first block")
COLOURS = {
    "none": "#000000",
    "fewer steps": "#7f7f7f",
    "midpoint": "#8c6d31",
    "heun": "#c49c94",
    "ddim": "#8c6d31",
    "dpm++ 2m": "#e7ba52",
    "warm start": "#e377c2",
    "fora": "#1f77b4",
    "taylor 1": "#2ca02c",
    "taylor 2": "#98df8a",
    "tokens": "#9467bd",
    "first block": "#17becf",
    "moeca": "#d62728",
    "moeca, lazy": "#ff7f0e",
    "moeca, lazy + fewer steps": "#ffbb78",
}
PARTS = {
    "attention": "#1f77b4",
    "experts": "#d62728",
    "router": "#ff7f0e",
    "scoring": "#9467bd",
    "gather and scatter": "#8c564b",
    "combine": "#e377c2",
    "forecast": "#2ca02c",
    "rest": "#bbbbbb",
}
"""Parts of a step, in the order in which they are stacked."""


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that no other beats in both time and error, by time."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["ms"], r["error_mean"])):
        if not kept or row["error_mean"] < kept[-1]["error_mean"]:
            kept.append(row)
    return kept


def groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows of contenders that can be compared: same sampler, batch and threads."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if "error_mean" in row:
            found.setdefault((row["sampler"], row["batch"], row["threads"]), []).append(row)
    return found


def front_behind(rows: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, float]]:
    """Caches that beat MoECa's front somewhere by more than ``TOLERANCE``, at equal steps.

    For each setting of a family, faster than the plain head, MoECa's fastest setting of no larger
    error is looked up; the plain head itself counts as one, since MoECa with a budget of 1 is it.
    Returns the families, and per family the worst ratio of those times: above 1, MoECa is slower.
    Speed-ups are compared, which are of calls in the same turn, so that a machine that is slow for
    a while favours nobody.
    """
    worst: dict[str, float] = {}
    for same in groups(rows).values():
        own = [row for row in same if row["family"] in (*OWN, "none")]
        for row in same:
            if row["family"] not in RIVALS or row["speedup"] <= 1:
                continue
            best = max(r["speedup"] for r in own if r["error_mean"] <= row["error_mean"])
            worst[row["family"]] = max(worst.get(row["family"], 0.0), row["speedup"] / best)
    return [name for name, ratio in worst.items() if ratio > TOLERANCE], worst


def draw_front(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Time against error of all contenders as PNG, a panel per sampler, batch and threads.

    ImportError without matplotlib (the extra ``train``).
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    panels = groups(rows)
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.5 * columns, 4.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    labels: dict[str, Any] = {}
    for axis, ((sampler, batch, threads), same) in zip(axes, panels.items(), strict=False):
        for family in dict.fromkeys(row["family"] for row in same):
            points = [r for r in same if r["family"] == family and r["error_mean"] > 0]
            x, y = [r["ms"] for r in points], [r["error_mean"] for r in points]
            colour = COLOURS.get(family, "#bcbd22")
            if points:
                labels.setdefault(family, axis.scatter(x, y, s=22, color=colour))
                axis.scatter(x, y, s=22, color=colour)
            line = front(points)
            axis.plot(
                [r["ms"] for r in line], [r["error_mean"] for r in line], color=colour, alpha=0.5
            )
        best = front([r for r in same if r["error_mean"] > 0])
        x, y = [r["ms"] for r in best], [r["error_mean"] for r in best]
        labels["front of all"] = axis.plot(x, y, color="#000000", linewidth=0.8, linestyle="--")[0]
        plain = next(r for r in same if r["family"] == "none")
        axis.axvline(plain["ms"], color="#000000", linewidth=0.8, alpha=0.4)
        axis.set(xscale="log", yscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{sampler}, {batch}, {threads} thread(s)", fontsize=10)
        axis.set_xlabel("head per call, ms (line: the plain head)")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("mean distance from the plain chunk (1: largest command)")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=2 + 2 * columns
    )
    figure.savefig(path, dpi=100)


def draw_parts(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Where the time of a step goes, as stacked bars; rows with ``parts_ms``."""
    from matplotlib.figure import Figure

    bars = [row for row in rows if "parts_ms" in row]
    figure = Figure(figsize=(9.0, 0.42 * len(bars) + 1.6), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(bars):
        left = 0.0
        for part, colour in PARTS.items():
            width = row["parts_ms"].get(part, 0.0)
            label = part if not place else None
            axis.barh(place, width, left=left, color=colour, label=label)
            left += width
        axis.text(left, place, f" {left:.2f} ms", va="center", fontsize=8)
    axis.set_yticks(range(len(bars)), [r["label"] for r in bars], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f"where the time of a step goes, {bars[0]['sampler']}", fontsize=10)
    axis.set_xlabel("ms per denoising step, one thread")
    axis.set_xlim(right=1.12 * axis.get_xlim()[1])
    axis.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.14))
    figure.savefig(path, dpi=100)


def show(result: Result) -> None:
    """Prints one line per contender, a star where it is on the front of its group; then closed
    loops and summary."""
    console = Console()
    for (sampler, batch, threads), same in groups(result.rows).items():
        table = Table(
            title=f"{sampler}, {batch}, {threads} thread(s); {result.config['clock']}",
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
    _plain_table(console, [r for r in result.rows if "closed_loop" in r], "closed loop")
    _plain_table(console, [r for r in result.rows if "across" in r], "from the inference before")
    _plain_table(console, [r for r in result.rows if "compiled" in r], "torch.compile")
    _plain_table(console, [r for r in result.rows if "budget" in r], result.config["clock"])
    for key, value in result.summary.items():
        console.print(f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}")


def _plain_table(console: Console, rows: Sequence[dict[str, Any]], title: str) -> None:
    if not rows:
        return
    names = [name for name, value in rows[0].items() if not isinstance(value, list | dict)]
    table = Table(title=title, box=None)
    for name in names:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in map(row.get, names))
        )
    console.print(table)
