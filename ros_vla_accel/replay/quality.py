"""What is wrong with a recording, counted by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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

    def as_dict(self) -> dict[str, object]:
        """JSON form: every kind that occurred, by name, beside the rest."""
        return {
            **{kind: self.counts[kind] for kind in KINDS if self.counts[kind]},
            "samples": self.samples,
            "refused": self.refused,
            "offsets_s": self.offsets_s,
            "notes": self.notes,
        }
