"""What is wrong with a recording, counted by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ros_vla_accel.kinematics.joints import JointStateError
from ros_vla_accel.replay.fields import JointFields

GAP_NS = 250_000_000
"""A longer silence starts motion afresh, see ``IncrementSource`` and ``TriggerConfig``."""

KINDS = {
    "empty_name": "no joint names: refused",
    "empty_position": "no positions: refused",
    "empty_velocity": "no velocities: differentiated from positions",
    "empty_effort": "no efforts: no torque trigger",
    "zero_velocity": "velocities all zero while the arm moves: differentiated from positions",
    "zero_effort": "efforts all zero so far: taken as not published",
    "zero_stamp": "no header stamp: the receive stamp is used",
    "duplicate_stamp": "stamp of the message before: refused",
    "backward_stamp": "stamp older than the message before: refused",
    "clock_reset": "stamps go back by more than a second: read as a new start",
    "repeated": "same values as the message before under a newer stamp",
    "burst": "arrived at once with the message before",
    "gap": "nothing for too long before it: motion starts afresh",
    "absurd": "values beyond 1e6: refused",
    "not_finite": "NaN or infinity: refused",
    "short": "fewer or more values than names: refused",
    "order_change": "other joint names or order than the message before: matched by name",
    "missing_joint": "a joint that is wanted is not there: refused",
    "duplicate_joint": "a joint is named twice: refused",
    "undecodable": "bytes that do not fit the message definition: skipped",
    "damaged_file": "file read up to the damage",
}
"""Kind -> what it means and what was done about it."""


@dataclass
class Quality:
    """Counts by kind (see KINDS), clock offsets by topic, and notes in words.

    offsets_s: topic -> receive stamp less header stamp, where a constant offset was detected and
    the topic aligned by it. samples: joint states that were used; refused: that were not.
    """

    counts: Counter[str] = field(default_factory=Counter)
    offsets_s: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    refused: int = 0

    def as_dict(self) -> dict[str, int]:
        """Counts of the kinds that occurred, in the order of KINDS."""
        return {kind: self.counts[kind] for kind in KINDS if self.counts[kind]}


_REFUSALS = {"absurd": "absurd", "not_finite": "not_finite", "length": "short"}
"""Reasons of a JointStateError that are a kind by themselves."""


class QualityCheck:
    """Looks at each joint state beside the one before, and counts what is odd about it."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self._order: list[str] = []
        self._content: tuple[bytes, bytes, bytes] | None = None
        self._header_ns = 0
        self._received_ns = 0
        self._velocity_seen = self._effort_seen = False

    def note(
        self, fields: JointFields, received_ns: int, error: JointStateError | None = None
    ) -> None:
        """Takes the next message, and why it was refused if it was."""
        self._look_at_names(fields.name)
        if error is not None:
            self.quality.refused += 1
            self._look_at_refusal(fields, error)
            return
        self.quality.samples += 1
        content = (_bytes(fields.position), _bytes(fields.velocity), _bytes(fields.effort))
        self._look_at_values(fields, content)
        self._look_at_times(fields.header_ns, received_ns, content)
        self._content = content
        self._header_ns = fields.header_ns
        self._received_ns = received_ns

    def _look_at_names(self, names: list[str]) -> None:
        if names != self._order:
            if self._order and names:
                self.quality.counts["order_change"] += 1
            self._order = list(names) or self._order

    def _look_at_refusal(self, fields: JointFields, error: JointStateError) -> None:
        kind = _REFUSALS.get(error.reason, "")
        if error.reason == "names":
            kind = "duplicate_joint" if len(fields.name) else "empty_name"
        elif error.reason == "missing":
            kind = "missing_joint" if len(fields.position) else "empty_position"
        elif error.reason == "stamp":
            same = fields.header_ns == self._header_ns
            kind = "duplicate_stamp" if same else "backward_stamp"
        self.quality.counts[kind] += 1

    def _look_at_values(self, fields: JointFields, content: tuple[bytes, bytes, bytes]) -> None:
        counts = self.quality.counts
        _, velocity, effort = content
        if not velocity:
            counts["empty_velocity"] += 1
        elif not self._velocity_seen:
            self._velocity_seen = bool(np.any(fields.velocity))
            if not self._velocity_seen and self._content and self._content[0] != content[0]:
                counts["zero_velocity"] += 1
        if not effort:
            counts["empty_effort"] += 1
        elif not self._effort_seen:
            self._effort_seen = bool(np.any(fields.effort))
            if not self._effort_seen:
                counts["zero_effort"] += 1

    def _look_at_times(
        self, header_ns: int, received_ns: int, content: tuple[bytes, bytes, bytes]
    ) -> None:
        counts = self.quality.counts
        if header_ns == 0:
            counts["zero_stamp"] += 1
            step_ns = received_ns - self._received_ns
        else:
            step_ns = header_ns - self._header_ns
        if self._content is None:
            return
        if step_ns < 0:
            counts["clock_reset"] += 1
        elif step_ns > GAP_NS:
            counts["gap"] += 1
        elif content == self._content:
            counts["repeated"] += 1
        if header_ns and 0 <= 10 * (received_ns - self._received_ns) < step_ns:
            counts["burst"] += 1


def _bytes(values: Any) -> bytes:
    return bytes((values if isinstance(values, np.ndarray) else np.asarray(values)).tobytes())
