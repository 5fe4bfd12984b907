"""From recordings to DyQ-VLA's constants and RAPID's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from ros_vla_accel.experiments.motion_probe import Recording
from ros_vla_accel.experiments.width import to_sample
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers
from ros_vla_accel.precision import PrecisionConfig, PrecisionController

EDGES = np.linspace(0.0, 1.0, 11)
"""Of the table's rows. The paper fixes theta_fp at 0.5; how fine a motion a policy's own 8-bit
errors allow is measured here instead, up to rest."""
ERROR_SHARE = 0.95
"""Share of the inferences of a width whose error must be allowed."""
FEW = 20
"""Fewer inferences than this in a row of the table: it takes the bits of the row above."""
MOST_FALL_STEPS = 20
CRITICAL_SHARE = 0.18
"""Share of the control periods that are critical: RAPID reports that more than 80 % are not."""


@dataclass(frozen=True)
class Signals:
    """Fineness M~ and jerk J~ of T control periods, each (T,), NaN at a cold start."""

    fineness: np.ndarray
    jerk: np.ndarray

    def score(self, lambda_: float) -> np.ndarray:
        return np.maximum(0.0, lambda_ * self.fineness + (1.0 - lambda_) * self.jerk)


@dataclass
class Fit:
    """Constants, and what they were read from.

    signals: per recording. probes: (P, 3), fineness, jerk and sensitivity s_t (m per full scale)
    of each probed step. correlation: rank correlation of s_t with each proxy. tolerance_m: D_T
    that the policy's own noise makes. edges: (B + 1,) of the table's rows; allowed: (B,) eps_a;
    errors: bits -> (B,), the ``ERROR_SHARE`` quantile; counts: (B,) inferences.
    """

    precision: PrecisionConfig
    triggers: dict[str, float]
    signals: list[Signals]
    probes: np.ndarray
    correlation: dict[str, float]
    tolerance_m: float
    edges: np.ndarray
    allowed: np.ndarray
    errors: dict[int, np.ndarray]
    counts: np.ndarray


def fit(recordings: Sequence[Recording], base: PrecisionConfig, replan_rows: int) -> Fit:
    """ValueError when the recordings are too few or too short to tell anything."""
    probed = sum(len(recording.probed) for recording in recordings)
    if probed < len(EDGES) or not any(recording.success for recording in recordings):
        raise ValueError(
            f"{probed} probed steps and {sum(r.success for r in recordings)} successful episodes "
            "are too few to calibrate by; raise --episodes or --probes, or check the policy with "
            "`ros-vla-accel eval`"
        )
    moved = np.concatenate([[i.a_xyz for i in r.increments] for r in recordings])
    turned = [np.diff([i.a_rot for i in r.increments], axis=0) for r in recordings]
    mu95 = float(np.quantile(np.linalg.norm(moved, axis=1), 0.95))
    nu95 = float(np.quantile(np.linalg.norm(np.concatenate(turned), axis=1), 0.95))
    config = replace(base, mu95=_digits(mu95), nu95=_digits(nu95))
    signals = [signals_of(recording, config) for recording in recordings]
    probes = np.array(
        [
            (s.fineness[step], s.jerk[step], sensitivity)
            for r, s in zip(recordings, signals, strict=True)
            for step, sensitivity in zip(r.probed, r.sensitivity, strict=True)
            if np.isfinite(s.fineness[step])
        ]
    )
    config = replace(config, lambda_=_best_lambda(probes))
    score = Signals(probes[:, 0], probes[:, 1]).score(config.lambda_)
    columns = {"fineness": probes[:, 0], "jerk": probes[:, 1], "score": score}
    correlation = {k: float(spearmanr(v, probes[:, 2]).statistic) for k, v in columns.items()}
    tolerance = float(np.median(np.concatenate([r.noise for r in recordings])))
    allowed = tolerance / sensitivity_at(score, probes[:, 2], EDGES[1:])
    counts, errors = errors_by_row(recordings, signals, config.lambda_, EDGES)
    table = choose_bits(EDGES, allowed, errors, counts)
    theta_fp = table[-1][0] if table else 0.0
    config = replace(config, table=table, theta_fp=theta_fp, calibrated=True)
    config = replace(config, fall_steps=_fall_steps(recordings, config, replan_rows))
    return Fit(
        config,
        fit_triggers(recordings),
        signals,
        probes,
        correlation,
        tolerance,
        EDGES,
        allowed,
        errors,
        counts,
    )


def signals_of(recording: Recording, config: PrecisionConfig) -> Signals:
    """By the controller itself, so that what is fitted is what will run."""
    controller = PrecisionController(config)
    decisions = [controller.update(i.a_xyz, i.a_rot, i.stamp_ns) for i in recording.increments]
    return Signals(
        np.array([d.fineness for d in decisions]), np.array([d.jerk for d in decisions])
    )


def _best_lambda(probes: np.ndarray) -> float:
    signals = Signals(probes[:, 0], probes[:, 1])
    grid = np.linspace(0.0, 1.0, 21)
    ranks = [spearmanr(signals.score(x), probes[:, 2]).statistic for x in grid]
    return float(np.round(grid[int(np.nanargmax(ranks))], 2))


def sensitivity_at(score: np.ndarray, sensitivity: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The rising curve of least squares through (score, sensitivity), m per full scale."""
    order = np.argsort(score)
    rising = isotonic_regression(sensitivity[order]).x
    return np.maximum(np.interp(at, score[order], rising), 1e-9)


def errors_by_row(
    recordings: Sequence[Recording], signals: Sequence[Signals], lambda_: float, edges: np.ndarray
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Inferences per row of the table, and a high quantile of their errors at each width."""
    scores = np.concatenate(
        [s.score(lambda_)[r.asked] for r, s in zip(recordings, signals, strict=True)]
    )
    rows = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, None)
    inside = np.isfinite(scores) & (scores <= edges[-1])
    counts = np.array([np.sum(inside & (rows == b)) for b in range(len(edges) - 1)])
    errors = {}
    for bits in recordings[0].errors:
        wrong = np.concatenate([r.errors[bits] for r in recordings])
        errors[bits] = np.array(
            [
                np.quantile(wrong[inside & (rows == b)], ERROR_SHARE) if counts[b] else np.nan
                for b in range(len(edges) - 1)
            ]
        )
    return counts, errors


def choose_bits(
    edges: np.ndarray, allowed: np.ndarray, errors: dict[int, np.ndarray], counts: np.ndarray
) -> tuple[tuple[float, int], ...]:
    """Phi: per row the fewest bits whose error is allowed, never fewer than in the row below.

    A row with few inferences takes what the row above it takes. Neighbours alike become one;
    what needs 16 bits is above theta_fp and has no row.
    """
    chosen = [16] * len(allowed)
    for row in reversed(range(len(allowed))):
        if counts[row] < FEW:
            chosen[row] = chosen[row + 1] if row + 1 < len(allowed) else 16
            continue
        fitting = [bits for bits, error in sorted(errors.items()) if error[row] <= allowed[row]]
        chosen[row] = fitting[0] if fitting else 16
    rising = np.maximum.accumulate(chosen).tolist()
    return tuple(
        (_digits(float(edges[row + 1])), bits)
        for row, bits in enumerate(rising)
        if bits < 16 and (row + 1 == len(rising) or rising[row + 1] != bits)
    )


def _fall_steps(recordings: Sequence[Recording], config: PrecisionConfig, replan_rows: int) -> int:
    """K: the fewest steps, at least 2, with which a width lasts for one chunk on average: chunks
    are made at one width, so that faster changes are for nothing."""
    steps = sum(len(recording.increments) for recording in recordings)
    for fall_steps in range(2, MOST_FALL_STEPS):
        changes = 0
        for recording in recordings:
            controller = PrecisionController(replace(config, fall_steps=fall_steps))
            bits = [
                controller.update(i.a_xyz, i.a_rot, i.stamp_ns).bits for i in recording.increments
            ]
            changes += int(np.count_nonzero(np.diff(bits)))
        if changes * replan_rows <= steps:
            return fall_steps
    return MOST_FALL_STEPS


def fit_triggers(recordings: Sequence[Recording]) -> dict[str, float]:
    """speed_ref by the 95th percentile of the joint speed; thresholds, of one quantile each, by
    the share of control periods in which either is passed."""
    speeds = [float(np.linalg.norm(s.velocity)) for r in recordings for s in r.samples]
    speed_ref = _digits(float(np.quantile(speeds, 0.95)))
    peaks = []
    for recording in recordings:
        triggers = Triggers(replace(TriggerConfig(), speed_ref=speed_ref))
        per_step = max(1, len(recording.samples) // len(recording.actions))
        found = [triggers.update(to_sample(sample)) for sample in recording.samples]
        both = np.array(
            [
                (
                    s.velocity_weight * s.acceleration_anomaly,
                    (1 - s.velocity_weight) * s.torque_anomaly,
                )
                for s in found
            ]
        )
        whole = len(both) // per_step * per_step
        peaks.append(np.nan_to_num(both[:whole]).reshape(-1, per_step, 2).max(1))
    peak = np.concatenate(peaks)
    shares = np.linspace(0.5, 0.999, 200)
    levels = np.array([np.quantile(peak, share, axis=0) for share in shares])
    critical = np.array([np.mean((peak > level).any(1)) for level in levels])
    best = levels[int(np.argmin(np.abs(critical - CRITICAL_SHARE)))]
    return {
        "speed_ref": speed_ref,
        "theta_compat": _digits(max(float(best[0]), 1e-3)),
        "theta_redundancy": _digits(max(float(best[1]), 1e-3)),
    }


def _digits(value: float) -> float:
    """Four significant digits: more would be noise in a file that people read."""
    return float(f"{value:.4g}")
