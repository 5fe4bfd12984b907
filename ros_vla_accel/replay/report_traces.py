"""plotly traces, as plain dictionaries: lines, steps, points and lanes over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.replay.report_sampling import break_gaps, keep_changes, keep_extremes

MAX_POINTS = 16_000
"""Points of one line in the file: 10 minutes keep a minimum and a maximum every 75 ms."""

# Okabe and Ito's colours, told apart by colour-blind readers; dashes serve who prints in grey.
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, GREY = "#a3507f", "#56b4e9", "#8a94a3"

Trace = dict[str, Any]


def line(
    name: str, t: ArrayLike, y: ArrayLike, color: str, width: float = 1.3, dash: str = "solid"
) -> Trace:
    """A signal: spikes stay, and nothing is drawn across a gap."""
    times, values = break_gaps(*keep_extremes(t, y, MAX_POINTS))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": times,
        "y": values,
        "line": {"color": color, "width": width, "dash": dash},
        "hovertemplate": "%{y:.4g}",
    }


def step(
    name: str, t: ArrayLike, y: ArrayLike, color: str, width: float = 1.6, dash: str = "solid"
) -> Trace:
    """A signal that holds its value until the next point."""
    times, values = keep_changes(*break_gaps(t, y))
    trace = line(name, [], [], color, width, dash)
    trace["line"]["shape"] = "hv"
    return {**trace, "x": times, "y": values, "hovertemplate": "%{y:.6g}"}


def points(name: str, t: ArrayLike, y: ArrayLike, color: str, symbol: str = "circle") -> Trace:
    times, values = keep_extremes(t, y, MAX_POINTS)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": times,
        "y": values,
        "marker": {"color": color, "symbol": symbol, "size": 5},
        "hovertemplate": "%{y:.4g}",
    }


def threshold(name: str, value: float, span_s: tuple[float, float]) -> Trace:
    """A horizontal line over the whole recording."""
    return {
        **line(name, np.array(span_s), np.full(2, value), RED, 1.0, "dash"),
        "hovertemplate": f"{value:.4g}",
    }


def marks(name: str, t: ArrayLike, height: float, color: str, symbol: str, size: int = 9) -> Trace:
    """Moments, as symbols at one height."""
    times = np.asarray(t, np.float64)
    return {
        **points(name, times, np.full(len(times), height), color, symbol),
        "marker": {"color": color, "symbol": symbol, "size": size, "line": {"width": 1}},
        "cliponaxis": False,
        "hovertemplate": "%{x:.3f} s",
    }


def lane(
    t: ArrayLike, codes: ArrayLike, end_s: float, height: float, styles: dict[Any, tuple[str, str]]
) -> list[Trace]:
    """A bar along time, coloured by what holds: one trace per value that occurs.

    codes: (n,) from times t on, until the next or end_s. styles: value -> (name, colour); other
    values leave the bar open.
    """
    times, values = np.asarray(t, np.float64), np.asarray(codes)
    if not len(times):
        return []
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    starts, held = times[first], values[first]
    ends = np.append(starts[1:], max(end_s, times[-1]))
    traces = []
    for value, (name, color) in styles.items():
        at = held == value
        if not at.any():
            continue
        x = np.stack([starts[at], ends[at], np.full(at.sum(), np.nan)], axis=1).ravel()
        y = np.tile([height, height, np.nan], int(at.sum()))
        traces.append(
            {
                **line(name, [], [], color, 13.0),
                "x": x,
                "y": y,
                "hovertemplate": name + "<extra></extra>",
                "legendgroup": name,
            }
        )
    return traces
