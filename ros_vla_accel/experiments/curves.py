"""The losses of a training run as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

LABELS = {
    "action": "action (flow velocity or noise)",
    "auxiliary": "positions of hand, object, goal",
    "balance": "load balance of the experts",
}
WINDOW_STEPS = 50


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of ``log.csv`` by name, float. Raises ValueError for a file without rows."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"'{path}' has no rows; train first")
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def describe_times(log: Path, recording_s: float) -> str:
    """How long a run took, in a sentence. recording_s: wall time of the episodes, or NaN."""
    seconds = read_log(log)["seconds"]
    recording = (
        f"recording {recording_s / 60:.0f} minutes"
        if np.isfinite(recording_s)
        else "the time of recording was not kept"
    )
    return (
        f"{len(seconds)} steps in {seconds.sum() / 60:.0f} minutes "
        f"({np.median(seconds):.2f} s each in the median); {recording}."
    )


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over up to ``window`` values that end at each; the same length."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)


def draw_curves(log: Path, rounds: Sequence[int], picture: Path) -> None:
    """Losses over the steps as PNG; rounds: steps after which DAgger added episodes."""
    columns = read_log(log)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots(len(LABELS), 1, sharex=True)
    for axis, (name, label) in zip(axes, LABELS.items(), strict=True):
        axis.plot(columns["step"], columns[name], color="#b0c4de", linewidth=0.6)
        axis.plot(columns["step"], smooth(columns[name], WINDOW_STEPS), color="#1f4e79")
        low, high = np.percentile(columns[name], [0.5, 99])
        margin = 0.1 * (high - low) + 1e-3
        axis.set_ylim(max(0.0, low - margin), high + margin)
        axis.set_ylabel("loss")
        axis.set_title(label, loc="left", fontsize=10)
        axis.grid(alpha=0.3)
        for step in rounds:
            axis.axvline(step, color="#c05020", linestyle="--", linewidth=0.8)
    axes[-1].set_xlabel(f"step (dark: mean of {WINDOW_STEPS}; dashed: a DAgger round)")
    figure.savefig(picture, dpi=110)
