"""DyQ-VLA's decision: how many activation bits the robot's motion needs now."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ros_vla_accel.contracts import ACTIVATION_BITS
from ros_vla_accel.kinematics.joints import FloatArray
from ros_vla_accel.precision.config import PrecisionConfig

FULL = ACTIVATION_BITS[-1]


@dataclass(frozen=True)
class PrecisionDecision:
    """bits: 2, 4, 8 or 16. sensitivity S_t, fineness M~_t, jerk J~_t: no unit, NaN if unknown.

    needed_ns: stamp from which on the bits are needed, later than now where the plan's coming
    rows ask for them; 0 where nothing is known, which means now.
    """

    bits: int
    sensitivity: float
    fineness: float
    jerk: float
    reason: str
    needed_ns: int = 0


class PrecisionController:
    """Motion fineness and angular jerk to activation bits, once per control period.

    arXiv:2603.07904: S = max(0, lambda*M~ + (1-lambda)*J~), M~ the mean over the macro window of
    1 - ||a_xyz||/mu95, J~ the mean over the micro window of ||a_rot,t - a_rot,t-1||/nu95; full
    precision above theta_fp, a table below. A rise is immediate; a fall needs ``fall_steps``
    periods in a row that ask for fewer bits, and goes to the most that any of them asked for.

    Beyond the paper: where the coming rows of the plan are known, what they will need counts as
    asked for now, so that a chunk of enough bits is there before the fragile part begins.

    Whatever is not known means full precision: windows not yet full, increments that are not
    numbers, a gap in the stamps, no samples. Memory is the two windows, far below 64 KB.
    Not thread-safe: one joint_states callback drives it.
    """

    def __init__(self, config: PrecisionConfig | None = None) -> None:
        self.config = config or PrecisionConfig()
        self._period_ns = round(self.config.period_s * 1e9)
        self.reset()

    def reset(self) -> None:
        """Back to a cold start."""
        self.bits = FULL
        self._fineness: deque[float] = deque(maxlen=self.config.macro_window)
        self._jerk: deque[float] = deque(maxlen=self.config.micro_window)
        self._rotation: tuple[float, float, float] | None = None
        self._stamp_ns: int | None = None
        self._asked_fewer = 0
        self._most_asked = 0
        self._needed_ns = 0

    def update(
        self,
        a_xyz: Iterable[float],
        a_rot: Iterable[float],
        stamp_ns: int,
        plan: FloatArray | None = None,
        turns: bool = True,
    ) -> PrecisionDecision:
        """Takes the increment of one control period: (3,) translation, (3,) rotation vector.

        plan: (n, 2, 3) increments of the rows about to be executed, first the next one. turns:
        whether they tell the rotation; if not, jerk is taken to go on as it is.
        """
        x, y, z = (float(value) for value in a_xyz)
        u, v, w = (float(value) for value in a_rot)
        if not math.isfinite(x + y + z + u + v + w):
            return self.unknown("increment is not finite")
        last_ns = self._stamp_ns
        if last_ns is not None and not 0 < stamp_ns - last_ns < 1.5 * self._period_ns:
            self.reset()
        self._stamp_ns = stamp_ns
        config = self.config
        self._fineness.append(1.0 - math.sqrt(x * x + y * y + z * z) / config.mu95)
        if self._rotation is not None:
            change = math.dist(self._rotation, (u, v, w))
            self._jerk.append(change / config.nu95)
        self._rotation = (u, v, w)
        missing = config.macro_window - len(self._fineness)
        missing = max(missing, config.micro_window - len(self._jerk))
        if missing > 0:
            return PrecisionDecision(
                FULL, math.nan, math.nan, math.nan, f"cold start, {missing} periods to go"
            )
        fineness = math.fsum(self._fineness) / config.macro_window
        jerk = math.fsum(self._jerk) / config.micro_window
        score = max(0.0, config.lambda_ * fineness + (1.0 - config.lambda_) * jerk)
        asked = self._look_up(score)
        ahead, row = (0, 0) if plan is None else self._look_ahead(plan, turns)
        now = asked > self.bits
        reason = self._switch(max(asked, ahead))
        needed_ns = stamp_ns + (0 if now or reason == "fall" else row * self._period_ns)
        if reason in ("rise", "fall"):
            self._needed_ns = needed_ns
        elif max(asked, ahead) == self.bits:
            self._needed_ns = min(self._needed_ns, stamp_ns if asked == self.bits else needed_ns)
        if reason == "rise" and not now:
            reason = f"rise, needed in {row} rows"
        return PrecisionDecision(self.bits, score, fineness, jerk, reason, self._needed_ns)

    def stale(self, now_ns: int, what: str = "joint states") -> PrecisionDecision | None:
        """A decision for full precision if no increment came for ``stale_s``, else None.

        now_ns: on the clock of the increments' stamps. what: where they come from.
        """
        if self._stamp_ns is None:
            return self.unknown(f"no {what}")
        age_s = (now_ns - self._stamp_ns) * 1e-9
        if abs(age_s) <= self.config.stale_s:
            return None
        return self.unknown(f"{what} are {age_s:.2f} s old")

    def unknown(self, reason: str) -> PrecisionDecision:
        """A cold start, with full precision meanwhile."""
        self.reset()
        return PrecisionDecision(FULL, math.nan, math.nan, math.nan, reason)

    def _look_ahead(self, plan: FloatArray, turns: bool) -> tuple[int, int]:
        """The most bits that the coming rows need, and in how many rows more are needed first."""
        config = self.config
        rows = plan[: config.look_ahead]
        if not len(rows) or not np.isfinite(rows).all():
            return 0, 0
        fine = 1.0 - np.sqrt((rows[:, 0] ** 2).sum(1)) / config.mu95
        fineness = _running_mean(self._fineness, fine)
        jerk = np.full(len(rows), math.fsum(self._jerk) / config.micro_window)
        if turns and self._rotation is not None:
            turned = np.vstack([self._rotation, rows[:, 1]])
            changes = np.sqrt((np.diff(turned, axis=0) ** 2).sum(1)) / config.nu95
            jerk = _running_mean(self._jerk, changes)
        scores = config.lambda_ * fineness + (1.0 - config.lambda_) * jerk
        needed = [self._look_up(max(0.0, score)) for score in scores.tolist()]
        most = max(needed)
        first = next((row for row, bits in enumerate(needed) if bits > self.bits), 0)
        return most, 1 + (first or needed.index(most))

    def _look_up(self, score: float) -> int:
        if score > self.config.theta_fp:
            return FULL
        for largest, bits in self.config.table:
            if score <= largest:
                return bits
        return FULL

    def _switch(self, asked: int) -> str:
        if asked >= self.bits:
            rise = asked > self.bits
            self.bits = asked
            self._asked_fewer = self._most_asked = 0
            return "rise" if rise else "steady"
        self._asked_fewer += 1
        self._most_asked = max(self._most_asked, asked)
        if self._asked_fewer < self.config.fall_steps:
            return f"hold {self._asked_fewer}/{self.config.fall_steps}"
        self.bits = self._most_asked
        self._asked_fewer = self._most_asked = 0
        return "fall"


def _running_mean(window: deque[float], coming: FloatArray) -> FloatArray:
    """Mean of the full window after each of the coming values (n,) has entered it."""
    values = np.concatenate([np.array(window), coming])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    size = len(window)
    return (sums[size + 1 :] - sums[1 : len(coming) + 1]) / size
