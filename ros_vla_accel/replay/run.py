"""What a replay found: time series, recorded events, pictures and the state of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros_vla_accel.replay.quality import Quality

Table = dict[str, NDArray[Any]]
"""Columns of equal length by name. Column ``t_s``: seconds since ``Run.start_ns``."""

SAMPLE_COLUMNS = (
    "t_s",
    "speed",
    "acceleration",
    "torque",
    "acceleration_anomaly",
    "torque_anomaly",
    "velocity_weight",
    "importance",
    "critical",
)
"""Of each joint sample, see ``partition.triggers``. speed: norm of the joint velocity, rad/s."""

DECISION_COLUMNS = (
    "t_s",
    "fineness",
    "jerk",
    "sensitivity",
    "bits",
    "importance",
    "route",
    "preempt_seq",
)
"""Of each control period: DyQ-VLA's scores (NaN if unknown) and bits, the largest importance in
the period, RAPID's route (0 edge, 1 cloud) and its count of preemptions."""

EVENT_COLUMNS = {
    "chunks": ("t_s", "observed_s", "request_id", "source", "bits", "horizon", "period_s"),
    "executor": ("t_s", "state", "source", "request_id", "row", "ticks", "starved_ticks"),
    "inference": ("t_s", "last_ms", "edge_p95_ms", "inferences_edge", "replies_cloud"),
    "link": ("t_s", "health", "round_trip_ms", "round_trip_p95_ms", "bandwidth_mbps"),
    "precision": ("t_s", "bits", "sensitivity"),
    "partition": ("t_s", "route", "preempt_seq", "importance"),
}
"""What the nodes said while the bag was recorded, by table. ``chunks`` has one more column
``timing.NAME`` (s) for each timing that any chunk carries (NaN where it has none)."""


@dataclass(frozen=True)
class Frame:
    """A recorded image for the camera strip: (H, W, 3) uint8 RGB, reduced in size."""

    topic: str
    t_s: float
    image: NDArray[np.uint8]


@dataclass
class Run:
    """A recording as ``replay.pipeline.replay`` saw it.

    start_ns: receive stamp of the bag's first message, ns. samples, decisions: columns
    SAMPLE_COLUMNS and DECISION_COLUMNS. preemptions_s: times at which the running chunk was to
    be replaced. thresholds: ``theta_fp``, ``theta_compat``, ``theta_redundancy``. events: tables
    of EVENT_COLUMNS, only those that the bag holds. inferences: table of ``--policy`` (``t_s``,
    ``bits``, ``duration_s``), empty without. bits, route: share of the control periods by width
    and by "edge"/"cloud". source: of the motion: fk, joint, action or none. messages: read from
    the bag. decision_count: lines of decisions.jsonl. wall_s: how long the replay took.
    """

    bag: str
    start_ns: int = 0
    duration_s: float = 0.0
    joint_names: tuple[str, ...] = ()
    source: str = "joint"
    messages: int = 0
    decision_count: int = 0
    wall_s: float = 0.0
    samples: Table = field(default_factory=dict)
    decisions: Table = field(default_factory=dict)
    preemptions_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    thresholds: dict[str, float] = field(default_factory=dict)
    events: dict[str, Table] = field(default_factory=dict)
    inferences: Table = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    quality: Quality = field(default_factory=Quality)

    @property
    def motion_by(self) -> str:
        """The source of motion in words."""
        known = {"fk": "forward kinematics", "joint": "joint space", "action": "commands"}
        return known.get(self.source, "nothing: no robot_description")

    @property
    def real_time_factor(self) -> float:
        """Recorded seconds per second of replay."""
        return self.duration_s / self.wall_s if self.wall_s > 0 else float("nan")

    @property
    def bits(self) -> dict[str, float]:
        widths, counts = np.unique(self.decisions.get("bits", ()), return_counts=True)
        return {
            str(int(width)): float(count / counts.sum())
            for width, count in zip(widths, counts, strict=True)
        }

    @property
    def route(self) -> dict[str, float]:
        route = self.decisions.get("route", np.zeros(0))
        if not len(route):
            return {}
        cloud = float(np.mean(route))
        return {"edge": 1.0 - cloud, "cloud": cloud}

    def summary(self) -> dict[str, Any]:
        """What ``replay --json`` writes."""
        return {
            "messages": self.messages,
            "decisions": self.decision_count,
            "preemptions": len(self.preemptions_s),
            "duration_s": self.duration_s,
            "real_time_factor": self.real_time_factor,
            "quality": self.quality.as_dict(),
            "samples": self.quality.samples,
            "refused": self.quality.refused,
            "clock_offsets_s": self.quality.offsets_s,
            "notes": self.quality.notes,
            "bits": self.bits,
            "route": self.route,
        }
