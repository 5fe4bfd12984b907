"""Constants of DyQ-VLA's decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from ros_vla_accel.contracts import ACTIVATION_BITS


@dataclass(frozen=True)
class PrecisionConfig:
    """Thresholds of the sensitivity score (arXiv:2603.07904; symbols as there).

    lambda_: weight of motion fineness against angular jerk. mu95, nu95: 95th percentiles of the
    translation increment (m per control period) and of the change of the rotation increment
    (rad). macro_window, micro_window: control periods over which fineness and jerk are averaged.
    theta_fp: above this sensitivity, full precision. table: Phi as (largest sensitivity, bits),
    rising, for what lies at or below theta_fp; beyond its last entry 16 bits. fall_steps: K,
    control periods that must ask for fewer bits in a row. period_s: control period; stale_s:
    oldest motion that may lower the width. look_ahead: coming rows of the plan that may raise the
    width; 0 for none. calibrated: whether a calibration made these numbers.

    The defaults fit an arm that moves at up to 0.2 m/s, with increments by forward kinematics.
    """

    lambda_: float = 0.6
    mu95: float = 0.010
    nu95: float = 0.010
    macro_window: int = 10
    micro_window: int = 5
    theta_fp: float = 0.5
    table: tuple[tuple[float, int], ...] = ((0.1, 2), (0.25, 4), (0.5, 8))
    fall_steps: int = 5
    period_s: float = 0.05
    stale_s: float = 0.25
    look_ahead: int = 8
    calibrated: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.lambda_ <= 1:
            raise ValueError(f"lambda is {self.lambda_}; it must lie in 0..1")
        for key in ("mu95", "nu95", "period_s", "stale_s"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be positive")
        for key in ("macro_window", "micro_window", "fall_steps"):
            if not 1 <= getattr(self, key) <= 1000:
                raise ValueError(f"{key} is {getattr(self, key)}; it must lie in 1..1000")
        if not 0 <= self.look_ahead <= 1000:
            raise ValueError(f"look_ahead is {self.look_ahead}; it must lie in 0..1000 rows")
        if len(self.table) > 64:
            raise ValueError(f"table has {len(self.table)} entries; 64 are plenty")
        for _, bits in self.table:
            if bits not in ACTIVATION_BITS:
                raise ValueError(f"table has {bits} bits; choose from {ACTIVATION_BITS}")
        for (low, fewer), (high, more) in pairwise(self.table):
            if not (low < high and fewer <= more):
                raise ValueError("table must rise in sensitivity and must not fall in bits")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrecisionConfig:
        """From YAML or parameters; "lambda" is ``lambda_``. Raises ValueError on unknown keys."""
        known = [item.name for item in fields(cls)]
        settings = {("lambda_" if key == "lambda" else key): values[key] for key in values}
        for key in settings:
            if key not in known:
                raise ValueError(f"unknown precision setting '{key}'; known: {', '.join(known)}")
        if "table" in settings:
            settings["table"] = tuple((float(s), int(bits)) for s, bits in settings["table"])
        return cls(**settings)

    def as_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads, of plain types."""
        values = {item.name.rstrip("_"): getattr(self, item.name) for item in fields(self)}
        return {**values, "table": [[largest, bits] for largest, bits in self.table]}
