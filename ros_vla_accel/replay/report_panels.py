"""The plots of a report, from what a replay found."""

from __future__ import annotations

from typing import Any

import numpy as np

from ros_vla_accel.replay.report_page import Panel
from ros_vla_accel.replay.report_traces import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    lane,
    line,
    marks,
    points,
    step,
    threshold,
)
from ros_vla_accel.replay.run import Run, Table

SOURCES = {"edge": ("edge", BLUE), "cloud": ("cloud", ORANGE)}
STATES = {0: ("idle", "#c3cad4"), 1: ("playing", GREEN), 2: ("starved", RED), 3: ("fault", PURPLE)}
"""``ExecutorState.msg``: value -> (name, colour)."""

LATENCY = {"edge": "timing.total", "cloud": "timing.round_trip"}
"""Source of a chunk -> column that holds what its inference took as the robot saw it, s."""

Missing = tuple[str, str]


def has(table: Table, *columns: str) -> bool:
    """Whether the table has rows and at least one number in one of the columns."""
    return any(
        len(table.get(column, ())) and not np.isnan(table[column].astype(float)).all()
        for column in columns
    )


def latencies(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Source -> (times s, milliseconds) of the inferences whose chunks the bag holds."""
    chunks = run.events.get("chunks", {})
    found = {}
    for source, column in LATENCY.items():
        if has(chunks, column):
            at = (chunks["source"] == source) & ~np.isnan(chunks[column])
            if at.any():
                found[source] = chunks["t_s"][at], 1e3 * chunks[column][at]
    if has(run.inferences, "duration_s"):
        found["replayed"] = run.inferences["t_s"], 1e3 * run.inferences["duration_s"]
    return found


def starved(run: Run) -> np.ndarray:
    """Starved ticks up to each executor state of the bag, counted anew when the node restarts."""
    counts = run.events["executor"]["starved_ticks"].astype(float)
    return np.concatenate(([0.0], np.cumsum(np.maximum(np.diff(counts), 0.0))))


def panels(run: Run, span_s: tuple[float, float]) -> tuple[list[Panel], list[Missing]]:
    """The panels whose data exist, and for each other one the reason why it is not there.

    span_s: from where to where thresholds and bars are drawn.
    """
    made = [
        _motion(run),
        _scores(run),
        _sensitivity(run, span_s),
        _bits(run),
        _acceleration(run, span_s),
        _torque(run, span_s),
        _importance(run),
        _lanes(run, span_s[1]),
        _latency(run),
        _starved(run),
        _cache(run),
        _link(run),
    ]
    return (
        [item for item in made if isinstance(item, Panel)],
        [item for item in made if not isinstance(item, Panel)],
    )


def _no_samples(run: Run) -> str:
    return f"no joint state of this recording could be used ({run.quality.refused} refused)"


def _motion(run: Run) -> Panel | Missing:
    name = "Joint speed"
    if not has(run.samples, "speed"):
        return name, _no_samples(run)
    trace = line("speed", run.samples["t_s"], run.samples["speed"], BLUE)
    return Panel("speed", name, "Norm of the joint velocities, rad/s.", [trace], {}, 150)


def _scores(run: Run) -> Panel | Missing:
    name, table = "Motion fineness and angular jerk", run.decisions
    if not has(table, "fineness", "jerk"):
        return name, _no_scores(run)
    traces = [
        line("fineness", table["t_s"], table["fineness"], GREEN),
        line("jerk", table["t_s"], table["jerk"], PURPLE, dash="dot"),
    ]
    note = "DyQ-VLA's two scores per control period, no unit; high fineness is slow, exact motion."
    if run.source == "joint":
        note += " Measured in joint space: no robot_description was used."
    return Panel("scores", name, note, traces, {"yaxis": {"rangemode": "normal"}}, 170)


def _no_scores(run: Run) -> str:
    if not has(run.samples, "speed"):
        return _no_samples(run)
    return "the recording is too short or too broken for the motion windows to fill"


def _sensitivity(run: Run, span_s: tuple[float, float]) -> Panel | Missing:
    name, table = "Sensitivity", run.decisions
    if not has(table, "sensitivity"):
        return name, _no_scores(run)
    traces = [line("sensitivity", table["t_s"], table["sensitivity"], BLUE)]
    if "theta_fp" in run.thresholds:
        traces.append(threshold("full precision above", run.thresholds["theta_fp"], span_s))
    recorded = run.events.get("precision", {})
    if has(recorded, "sensitivity"):
        seen = points("recorded live", recorded["t_s"], recorded["sensitivity"], ORANGE)
        traces.insert(1, seen)
    note = "DyQ-VLA's sensitivity of the task to noise in the actions, no unit."
    return Panel("sensitivity", name, note, traces, {}, 170)


def _bits(run: Run) -> Panel | Missing:
    name, table = "Activation bits", run.decisions
    if not has(table, "bits"):
        return name, _no_samples(run)
    traces = [step("decided in replay", table["t_s"], table["bits"], BLUE)]
    recorded = run.events.get("precision", {})
    if has(recorded, "bits"):
        seen = points("recorded live", recorded["t_s"], recorded["bits"], ORANGE)
        traces.append(seen)
    chunks = run.events.get("chunks", {})
    if has(chunks, "bits"):
        at = chunks["bits"] > 0
        traces.append(
            points("executed", chunks["t_s"][at], chunks["bits"][at], GREEN, "x-thin-open")
        )
    axis = {
        "type": "log",
        "tickvals": [2, 4, 8, 16],
        "range": [float(np.log10(1.6)), float(np.log10(20))],
    }
    note = "Width of the policy's activations; 16 is BF16. Full precision until scores are known."
    return Panel("bits", name, note, traces, {"yaxis": axis}, 170)


def _acceleration(run: Run, span_s: tuple[float, float]) -> Panel | Missing:
    name, table = "Acceleration anomaly", run.samples
    if not has(table, "acceleration_anomaly"):
        return name, _no_samples(run)
    weighted = table["velocity_weight"] * table["acceleration_anomaly"]
    traces = [
        line("A", table["t_s"], table["acceleration_anomaly"], SKY, 0.8),
        line("w·A", table["t_s"], weighted, BLUE),
    ]
    if "theta_compat" in run.thresholds:
        traces.append(threshold("threshold of w·A", run.thresholds["theta_compat"], span_s))
    note = "Joint acceleration, in deviations above its last second; w is the weight of speed."
    return Panel("acceleration", name, note, traces)


def _torque(run: Run, span_s: tuple[float, float]) -> Panel | Missing:
    name, table = "Torque anomaly", run.samples
    if not has(table, "torque_anomaly"):
        return name, _no_samples(run)
    if not has(table, "torque"):
        return name, "the joint states carry no effort that changes"
    weighted = (1.0 - table["velocity_weight"]) * table["torque_anomaly"]
    traces = [
        line("T", table["t_s"], table["torque_anomaly"], "#e7a2c8", 0.8),
        line("(1-w)·T", table["t_s"], weighted, PURPLE),
    ]
    if "theta_redundancy" in run.thresholds:
        limit = run.thresholds["theta_redundancy"]
        traces.append(threshold("threshold of (1-w)·T", limit, span_s))
    note = "Change of joint torque, in deviations above its last second."
    return Panel("torque", name, note, traces)


def _importance(run: Run) -> Panel | Missing:
    name, table = "Action importance", run.samples
    if not has(table, "importance"):
        return name, _no_samples(run)
    traces = [line("importance", table["t_s"], table["importance"], BLUE)]
    if len(run.preemptions_s):
        traces.append(marks("preemption", run.preemptions_s, 0.0, RED, "triangle-up"))
    note = "RAPID's I = w·A + (1-w)·T; triangles are where the running chunk was to be replaced."
    return Panel("importance", name, note, traces)


def _lanes(run: Run, end_s: float) -> Panel | Missing:
    name = "Route, chunks and executor"
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    route = run.decisions.get("route", np.zeros(0))
    if len(route):
        names = {0: SOURCES["edge"], 1: SOURCES["cloud"]}
        rows.append(("route", lane(run.decisions["t_s"], route, end_s, 0, names)))
    recorded = run.events.get("partition", {})
    if has(recorded, "route"):
        names = {0: SOURCES["edge"], 1: SOURCES["cloud"]}
        rows.append(("live", lane(recorded["t_s"], recorded["route"], end_s, 0, names)))
    executor = run.events.get("executor", {})
    if has(executor, "state"):
        source = np.where(executor["state"] == 1, executor["source"], "")
        bars = lane(executor["t_s"], source, end_s, 0, SOURCES)
        ids = executor["request_id"]
        seams = executor["t_s"][1:][(ids[1:] != ids[:-1]) & (ids[1:] != 0)]
        # Above the bar: in a long recording they would hide its colours.
        bars.append(marks("chunk boundary", seams, 0.33, "#1b2430", "line-ns-open", 4))
        rows.append(("chunk", bars))
        rows.append(("state", lane(executor["t_s"], executor["state"], end_s, 0, STATES)))
    elif has(run.events.get("chunks", {}), "bits"):
        chunks = run.events["chunks"]
        bars = [
            marks(
                f"chunk from {source}",
                chunks["t_s"][chunks["source"] == source],
                0,
                color,
                "line-ns-open",
            )
            for source, (_, color) in SOURCES.items()
            if (chunks["source"] == source).any()
        ]
        rows.append(("chunk", bars))
    if not rows:
        return name, _no_samples(run)
    if len(run.preemptions_s):
        flags = marks("preemption", run.preemptions_s, 0, RED, "triangle-down", 7)
        rows.insert(1, ("preempt", [flags]))
    traces, known = [], set()
    for height, (_, bars) in enumerate(reversed(rows)):
        for trace in bars:
            trace["y"] = trace["y"] + height
            trace["showlegend"] = trace["name"] not in known
            known.add(trace["name"])
            traces.append(trace)
    axis = {
        "tickvals": list(range(len(rows))),
        "ticktext": [label for label, _ in reversed(rows)],
        "range": [-0.6, len(rows) - 0.4],
        "showgrid": False,
    }
    layout = {"yaxis": axis, "hovermode": "closest"}
    note = (
        "Where inference was to run by the replay and live, whose chunk was played, and the "
        "executor's state."
    )
    return Panel("lanes", name, note, traces, layout, 70 + 34 * len(rows))


def _latency(run: Run) -> Panel | Missing:
    name, found = "Latency per inference", latencies(run)
    if not found:
        return name, "no action_chunk in the recording (and no --policy in the replay)"
    colors = {"edge": (BLUE, "circle"), "cloud": (ORANGE, "diamond"), "replayed": (GREEN, "x")}
    traces = [points(source, *found[source], *colors[source]) for source in found]
    note = "ms, from the start of the edge's forward pass, or from sending to the cloud's answer."
    return Panel("latency", name, note, traces, {"hovermode": "closest"}, 180)


def _starved(run: Run) -> Panel | Missing:
    name, executor = "Starved ticks", run.events.get("executor", {})
    if not has(executor, "starved_ticks"):
        return name, "no executor_state in the recording"
    trace = step("starved ticks", executor["t_s"], starved(run), RED)
    note = "Control periods in which an action was wanted and the chunk had none, counted up."
    return Panel("starved", name, note, [trace], {"yaxis": {"rangemode": "tozero"}}, 130)


def _cache(run: Run) -> Panel | Missing:
    name, table = "Cache reuse", run.events.get("inference", {})
    if not has(table, "cache_reuse"):
        return name, "no inference_stats with cache_reuse: no expert-branch cache was recorded"
    trace = step("reused", table["t_s"], 100.0 * table["cache_reuse"], GREEN)
    axis = {"ticksuffix": " %", "range": [0, 100]}
    note = "Share of the expert branches that were taken from the cache."
    return Panel("cache", name, note, [trace], {"yaxis": axis}, 150)


def _link(run: Run) -> Panel | Missing:
    name, table = "Link round trip", run.events.get("link", {})
    if not has(table, "round_trip_ms"):
        return name, "no link_stats with an answer of the cloud worker in the recording"
    traces = [
        line("smoothed", table["t_s"], table["round_trip_ms"], ORANGE),
        line("p95", table["t_s"], table["round_trip_p95_ms"], GREY, dash="dot"),
    ]
    down = table["t_s"][table["health"] == 0]
    if len(down):
        traces.append(marks("link down", down, 0.0, RED, "x"))
    return Panel(
        "link", name, "ms to the cloud worker and back, without its work.", traces, {}, 160
    )
