"""What ``ros-vla-accel calibrate`` found for one policy, as a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ros_vla_accel.precision.config import PrecisionConfig

SCHEMA = 1
SOURCES = ("fk", "action", "joint")


class CalibrationError(ValueError):
    """A calibration that cannot be used; the text says why, and how to get one that can."""


@dataclass(frozen=True)
class Calibration:
    """Constants fitted to the motion and the errors of one policy.

    policy: its name; identity: ``PolicySpec.identity``, which ``check`` compares. source: of the
    motion that mu95 and nu95 belong to (fk, action or joint). triggers: settings of RAPID's
    triggers by name, as far as they were fitted. measured: what the fit was made of, for people.
    """

    policy: str
    identity: str
    source: str
    precision: PrecisionConfig
    triggers: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def check(self, identity: str) -> None:
        """CalibrationError unless it was made for the policy of this identity."""
        if identity != self.identity:
            raise CalibrationError(
                f"the calibration was made for policy {self.policy} ({self.identity[:12]}), not "
                f"for this one ({identity[:12]}); run `ros-vla-accel calibrate` with this policy"
            )

    def settings(self, parameters: PrecisionConfig, source: str) -> tuple[PrecisionConfig, str]:
        """Its thresholds in place of those of ``parameters``, and the source of motion to use.

        period_s, stale_s and look_ahead stay those of ``parameters``. source: fk, action, joint,
        or auto for the calibration's own. CalibrationError where the thresholds mean nothing: for
        motion from another source, or over another control period.
        """
        if source not in ("auto", self.source):
            raise CalibrationError(
                f"the calibration was made with motion from '{self.source}', and the source is "
                f"'{source}'; set `source: {self.source}` (or auto), or run `ros-vla-accel "
                "calibrate` with that source"
            )
        if abs(parameters.period_s - self.precision.period_s) > 1e-9:
            raise CalibrationError(
                f"the calibration was made for control periods of {self.precision.period_s} s, "
                f"and period_s is {parameters.period_s}; run `ros-vla-accel calibrate` for it"
            )
        kept = {key: getattr(parameters, key) for key in ("period_s", "stale_s", "look_ahead")}
        return replace(self.precision, **kept), self.source

    def save(self, path: Path) -> None:
        """Writes YAML."""
        content = {
            "schema": SCHEMA,
            "policy": {"name": self.policy, "identity": self.identity},
            "source": self.source,
            "precision": self.precision.as_dict(),
            "triggers": self.triggers,
            "measured": self.measured,
        }
        head = "# Made by `ros-vla-accel calibrate` for one policy; refused for any other.\n"
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(head + text)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """CalibrationError for a file that is missing, damaged or of another schema."""
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CalibrationError(f"calibration '{path}' cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise CalibrationError(
                f"calibration '{path}' is no file of `ros-vla-accel calibrate`, or of another "
                "version; make a new one"
            )
        try:
            precision = PrecisionConfig.from_dict(content["precision"])
            found = cls(
                policy=str(content["policy"]["name"]),
                identity=str(content["policy"]["identity"]),
                source=str(content["source"]),
                precision=replace(precision, calibrated=True),
                triggers={str(k): float(v) for k, v in (content.get("triggers") or {}).items()},
                measured=dict(content.get("measured") or {}),
            )
            if found.source not in SOURCES:
                raise ValueError(f"source is '{found.source}', not one of {SOURCES}")
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CalibrationError(f"calibration '{path}' is damaged: {error!r}") from error
