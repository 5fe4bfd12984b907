"""Fewer points for a plot, without losing a spike, a gap or a switch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

GAP_PERIODS = 10.0
GAP_S = 0.5
"""A pause longer than both is a gap in the recording; no line is drawn across it."""


def keep_extremes(t: ArrayLike, y: ArrayLike, limit: int) -> tuple[FloatArray, FloatArray]:
    """At most about ``limit`` of the points (t, y), both (n,): the smallest and the largest of
    each run of neighbours, the ends, and one NaN wherever there are any.

    A maximum or minimum of any part of the signal that spans a run or more is therefore still
    there, at its own time; averaging or picking every n-th would lose one-sample spikes. Runs are
    of equal length, as in the M4/MinMax literature (doi:10.14778/2732951.2732953).
    """
    times, values = np.asarray(t, np.float64), np.asarray(y, np.float64)
    count = len(times)
    runs = max(limit // 2, 1)
    if count <= limit:
        return times, values
    length = -(-count // runs)
    missing = np.isnan(values)
    runs = -(-count // length)
    pad = (0, runs * length - count)
    shape = (runs, length)
    low = np.pad(np.where(missing, np.inf, values), pad, constant_values=np.inf).reshape(shape)
    high = np.pad(np.where(missing, -np.inf, values), pad, constant_values=-np.inf)
    first = np.arange(runs) * length
    kept = [first + low.argmin(1), first + high.reshape(shape).argmax(1), [0, count - 1]]
    if missing.any():
        holes = np.pad(missing, pad).reshape(shape)
        kept.append((first + holes.argmax(1))[holes.any(1)])
    index = np.unique(np.concatenate(kept))
    return times[index], values[index]


def keep_changes(t: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The points at which a step signal takes another value, the ends, and those before a NaN, up
    to which a step is drawn: nothing is lost."""
    times, values = np.asarray(t, np.float64), np.asarray(y, np.float64)
    if len(times) < 3:
        return times, values
    before, after = values[:-1], values[1:]
    changed = (before != after) & ~(np.isnan(before) & np.isnan(after))
    kept = np.concatenate(([True], changed))
    kept[:-1] |= np.isnan(after) & ~np.isnan(before)
    kept[-1] = True
    return times[kept], values[kept]


def break_gaps(t: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The points with a NaN after each one that a gap follows, so that a line breaks there."""
    times, values = np.asarray(t, np.float64), np.asarray(y, np.float64)
    steps = np.diff(times)
    if not len(steps):
        return times, values
    gap_s = max(GAP_S, GAP_PERIODS * float(np.median(steps)))
    after = np.flatnonzero(steps > gap_s) + 1
    return np.insert(times, after, times[after - 1]), np.insert(values, after, np.nan)
