"""A calibration in three pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ros_vla_accel.experiments.calibration_fit import Fit, Signals
from ros_vla_accel.experiments.motion_probe import Recording
from ros_vla_accel.precision import PrecisionController

_COLOURS = {2: "#4575b4", 4: "#74add1", 8: "#fdae61", 16: "#d73027"}
_MM = 1e3


def save_plots(folder: Path, found: Fit, recordings: Sequence[Recording]) -> list[Path]:
    """Writes sensitivity.png, table.png and timeline.png; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "sensitivity": sensitivity(found),
        "table": table(found),
        "timeline": timeline(found, recordings),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"calibration-{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def sensitivity(found: Fit) -> Figure:
    """Measured sensitivity of the probed steps against each proxy."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    score = Signals(found.probes[:, 0], found.probes[:, 1]).score(found.precision.lambda_)
    columns = {
        "fineness": ("motion fineness", found.probes[:, 0]),
        "jerk": ("angular jerk", found.probes[:, 1]),
        "score": (f"score S (lambda {found.precision.lambda_:g})", score),
    }
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (name, (label, values)) in zip(axes, columns.items(), strict=True):
        axis.scatter(values, _MM * found.probes[:, 2], s=9, alpha=0.5, color="#4575b4", lw=0)
        order = np.argsort(values)
        for part in np.array_split(order, 8):
            middle = np.median(values[part]), _MM * np.median(found.probes[part, 2])
            axis.plot(*middle, "o", color="#d73027", ms=5)
        axis.set_title(f"rank correlation {found.correlation[name]:.2f}", fontsize=10)
        axis.set_xlabel(label)
        axis.set_yscale("log")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("sensitivity of the step, mm per full scale")
    axes[0].plot([], [], "o", color="#d73027", ms=5, label="median of an eighth")
    axes[0].legend(fontsize=8, loc="lower left")
    return figure


def table(found: Fit) -> Figure:
    """Which scores occur, and what width each row of the table got because of which errors."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scores = np.concatenate([s.score(found.precision.lambda_) for s in found.signals])
    scores = scores[np.isfinite(scores)]
    end = max(1.0, float(np.quantile(scores, 0.99)))
    left.hist(np.clip(scores, 0, end), bins=50, color="#888888")
    low = 0.0
    for high, bits in (*found.precision.table, (end, 16)):
        left.axvspan(low, high, color=_COLOURS[bits], alpha=0.3, lw=0)
        left.text(
            (low + min(high, end)) / 2, 0.96, f"{bits} bits", ha="center", va="top",
            transform=left.get_xaxis_transform(),
        )  # fmt: skip
        low = high
    left.set(xlabel="score S", ylabel="control periods", xlim=(0, end))
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    right.step(
        np.append(found.edges[:-1], found.edges[-1]),
        np.append(found.allowed, found.allowed[-1]),
        where="post", color="black", label="allowed, eps_a",
    )  # fmt: skip
    for bits, errors in found.errors.items():
        right.plot(middle, errors, "o-", color=_COLOURS[bits], label=f"{bits} bits, 95 %")
    right.set(xlabel="score S", ylabel="error, share of full scale", yscale="log")
    right.grid(alpha=0.25)
    right.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def timeline(found: Fit, recordings: Sequence[Recording]) -> Figure:
    """One successful episode, of those with most gripper events: score, bits and gripper."""
    fitting = [i for i, r in enumerate(recordings) if r.success]
    chosen = max(fitting, key=lambda i: (len(_gripper_events(recordings[i])), -i))
    recording, config = recordings[chosen], found.precision
    controller = PrecisionController(config)
    decisions = [controller.update(i.a_xyz, i.a_rot, i.stamp_ns) for i in recording.increments]
    time = np.arange(len(decisions)) * config.period_s
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(time, [d.sensitivity for d in decisions], color="black", label="score S")
    top.plot(time, [d.fineness for d in decisions], lw=0.8, color="#4575b4", label="fineness")
    top.plot(time, [d.jerk for d in decisions], lw=0.8, color="#fdae61", label="jerk")
    top.axhline(config.theta_fp, color="#d73027", lw=0.8, ls="--", label="theta_fp")
    top.set(ylabel="signals", title=recording.task.removesuffix("-v3"))
    bottom.step(time, [d.bits for d in decisions], where="post", color="black")
    bottom.set(xlabel="s", ylabel="activation bits", yscale="log", ylim=(1.7, 19))
    bottom.set_yticks([2, 4, 8, 16], ["2", "4", "8", "16"])
    bottom.minorticks_off()
    for axis in (top, bottom):
        for n, at in enumerate(_gripper_events(recording)):
            axis.axvline(
                at * config.period_s, color="#1a9850", lw=1.2, alpha=0.7,
                label="gripper turns" if n == 0 and axis is top else None,
            )  # fmt: skip
        axis.grid(alpha=0.25)
    top.legend(fontsize=8, ncols=5, loc="upper right")
    return figure


def _gripper_events(recording: Recording) -> np.ndarray:
    """Steps at which the commanded gripper changes its direction."""
    closing = np.array([action[-1] for action in recording.actions]) > 0
    return np.flatnonzero(np.diff(closing.astype(int))) + 1
