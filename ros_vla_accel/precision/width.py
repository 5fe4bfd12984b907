"""The width that a policy runs at: the newest command's, or 16 bits while that is in doubt."""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.contracts import ACTIVATION_BITS, SCHEMA_VERSION

FULL = ACTIVATION_BITS[-1]
LEAST_UNCALIBRATED = 8
"""The shipped policy never succeeds at 2 bits: docs/precision.md."""
TIMEOUT_S = 1.0
"""quantization_controller renews its command four times as often."""


@dataclass(frozen=True)
class WidthCommand:
    """The fields of PrecisionCommand that decide.

    policy: identity that it was calibrated for, empty without a calibration. needed_ns: from when
    on the bits are needed, on the clock of the observations; 0: now.
    """

    schema_version: int
    bits: int
    policy: str
    needed_ns: int = 0


class CommandedWidth:
    """Keeps the newest command, and doubts it when it should.

    Full precision without a command, when none came for ``TIMEOUT_S`` of steady time (the
    controller died: nobody watches the motion), for a width or a schema that is unknown, and for
    thresholds that were calibrated for another policy. Without a calibration no fewer than
    ``LEAST_UNCALIBRATED`` bits: what a policy bears below is not known. identity:
    ``PolicySpec.identity``, empty until the policy is loaded.
    """

    def __init__(self) -> None:
        self.identity = ""
        self._command: WidthCommand | None = None
        self._steady_ns = 0

    def take(self, command: WidthCommand, steady_ns: int) -> None:
        """The newest command. steady_ns: now, on the steady clock."""
        self._command = command
        self._steady_ns = steady_ns

    def bits(self, steady_ns: int) -> int:
        """Bits of an inference that starts now."""
        command = self._command
        if command is None or self.mismatch or self._doubt(steady_ns):
            return FULL
        return command.bits if command.policy else max(command.bits, LEAST_UNCALIBRATED)

    def needed_ns(self, steady_ns: int) -> int:
        """From when on ``bits`` are needed; 0: now."""
        command = self._command
        if command is None or self.mismatch or self._doubt(steady_ns):
            return 0
        return command.needed_ns

    @property
    def mismatch(self) -> str:
        """Why the command is refused for good, or nothing."""
        command = self._command
        if command is None or not command.policy or not self.identity:
            return ""
        if command.policy == self.identity:
            return ""
        return (
            f"precision was calibrated for policy {command.policy[:12]}, this one is "
            f"{self.identity[:12]}: 16 bits; run `ros-vla-accel calibrate` with this policy, or "
            "name its calibration"
        )

    def problem(self, steady_ns: int) -> str:
        """Why a command that came does not count, or nothing."""
        return self.mismatch or self._doubt(steady_ns)

    def _doubt(self, steady_ns: int) -> str:
        command = self._command
        if command is None:
            return ""
        if command.schema_version != SCHEMA_VERSION:
            return f"precision has schema {command.schema_version}, not {SCHEMA_VERSION}: 16 bits"
        if command.bits not in ACTIVATION_BITS:
            return f"precision asks for {command.bits} bits, an unknown width: 16 bits"
        age_s = (steady_ns - self._steady_ns) * 1e-9
        if age_s > TIMEOUT_S:
            return f"no precision command for {age_s:.0f} s: 16 bits"
        return ""
