"""What the nodes said while the bag was recorded, as tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

Row = dict[str, Any]


def _seconds(stamp: Any) -> float:
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def _chunk(msg: Any) -> Row:
    timings = zip(msg.timing_names, msg.timings_s, strict=False)
    return {
        "observed_s": _seconds(msg.header.stamp),
        "request_id": int(msg.request_id),
        "source": str(msg.source),
        "bits": int(msg.activation_bits),
        "horizon": int(msg.horizon),
        "period_s": float(msg.period_s),
        **{f"timing.{name}": float(value) for name, value in timings},
    }


def _executor(msg: Any) -> Row:
    return {
        "state": int(msg.state),
        "source": str(msg.source),
        "request_id": int(msg.request_id),
        "row": int(msg.row),
        "ticks": int(msg.ticks),
        "starved_ticks": int(msg.starved_ticks),
    }


def _inference(msg: Any) -> Row:
    return {
        "last_ms": float(msg.last_ms),
        "edge_p95_ms": float(msg.edge_p95_ms),
        "inferences_edge": int(msg.inferences_edge),
        "replies_cloud": int(msg.replies_cloud),
        # Recordings of earlier versions have neither.
        "head_ms": float(getattr(msg, "head_ms", math.nan)),
        "cache_reuse": float(getattr(msg, "cache_reuse", math.nan)),
    }


def _link(msg: Any) -> Row:
    return {
        "health": int(msg.health),
        "round_trip_ms": float(msg.round_trip_ms),
        "round_trip_p95_ms": float(msg.round_trip_p95_ms),
        "bandwidth_mbps": float(msg.bandwidth_mbps),
    }


def _precision(msg: Any) -> Row:
    return {"bits": int(msg.activation_bits), "sensitivity": float(msg.sensitivity)}


def _partition(msg: Any) -> Row:
    return {
        "route": int(msg.route),
        "preempt_seq": int(msg.preempt_seq),
        "importance": float(msg.importance),
    }


KINDS: dict[str, tuple[str, Callable[[Any], Row]]] = {
    "ros_vla_accel/msg/ActionChunk": ("chunks", _chunk),
    "ros_vla_accel/msg/ExecutorState": ("executor", _executor),
    "ros_vla_accel/msg/InferenceStats": ("inference", _inference),
    "ros_vla_accel/msg/LinkStats": ("link", _link),
    "ros_vla_accel/msg/PrecisionCommand": ("precision", _precision),
    "ros_vla_accel/msg/PartitionDecision": ("partition", _partition),
}
"""Message type -> (table, function from a message to its row)."""


class EventLog:
    """Collects rows; ``tables`` turns them into columns."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = defaultdict(list)

    def take(self, msgtype: str, msg: Any, t_s: float) -> None:
        table, row = KINDS[msgtype]
        self._rows[table].append({"t_s": t_s, **row(msg)})

    def tables(self, start_s: float) -> dict[str, dict[str, np.ndarray]]:
        """start_s: time of the run's start, taken off ``observed_s``."""
        tables = {}
        for table, rows in self._rows.items():
            names = dict.fromkeys(name for row in rows for name in row)
            columns = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
            if "observed_s" in columns:
                columns["observed_s"] = columns["observed_s"] - start_s
            tables[table] = columns
        return tables
