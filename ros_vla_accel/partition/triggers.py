"""RAPID's triggers: which moments of a motion are too important for the chunk in play."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ros_vla_accel.kinematics.joints import ABSURD, CLOCK_RESET_S, JointSample
from ros_vla_accel.partition.window import SlidingWindow


@dataclass(frozen=True)
class TriggerConfig:
    """Constants of RAPID's dual threshold and dispatcher (arXiv:2603.07949; symbols as there).

    window_s: span of the mean and deviation that anomalies are measured by, and the length of
    the cold start. torque_window_s: span of the sliding mean of the torque's rate of change.
    theta_compat: threshold of w*A. theta_redundancy: threshold of (1-w)*T. speed_ref: joint
    speed (norm over the joints, rad/s) from which on acceleration alone counts.
    acceleration_eps (rad/s^2), torque_eps (Nm/s): added to the deviations, so that the noise of
    an arm at rest is no anomaly. cooldown_s: least time between two preemptions. step_s: span
    over which rates of change are taken. repeat_s: how long an unchanged vector counts as the
    same measurement sent again, and not as rest. gap_s: a longer silence means a cold start.

    With the defaults 12-18 % of the control periods of the scripted Meta-World tasks are
    critical, among them each first contact with the object and each turn of the gripper, and
    13 % of those of a KUKA LWR that was led by hand.
    """

    window_s: float = 1.0
    torque_window_s: float = 0.05
    theta_compat: float = 0.9
    theta_redundancy: float = 0.6
    speed_ref: float = 1.2
    acceleration_eps: float = 0.5
    torque_eps: float = 20.0
    cooldown_s: float = 0.3
    step_s: float = 0.0075
    repeat_s: float = 0.025
    gap_s: float = 0.25

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{key} is {value}; it must be positive and finite")
        for key in ("torque_window_s", "gap_s"):
            if getattr(self, key) > self.window_s / 2:
                raise ValueError(
                    f"{key} is {getattr(self, key)}; it must be at most half of window_s, "
                    f"which is {self.window_s}"
                )

    def calibrated(self, settings: Mapping[str, float]) -> TriggerConfig:
        """With these settings of a calibration. Raises ValueError naming an unknown one."""
        for key in settings:
            if key not in vars(self):
                known = ", ".join(vars(self))
                raise ValueError(f"the calibration has a trigger '{key}'; known: {known}")
        return replace(self, **settings)


class TriggerSignals(NamedTuple):
    """What one joint sample says; a tuple, since a dataclass takes longer to make than the rest.

    acceleration: a_t, norm of the joint acceleration, rad/s^2. torque: d_t, norm of the torque's
    rate of change, Nm/s, averaged over a short window; NaN while unknown. acceleration_anomaly,
    torque_anomaly: A_t, T_t, deviations above the mean, 0 at a cold start. velocity_weight: w_t,
    0..1. importance: I_t = w*A + (1-w)*T. critical: a threshold was passed. reason: which one,
    or what is missing. sees: both channels are warm, so that no critical moment is missed.
    """

    stamp_ns: int
    acceleration: float
    torque: float
    acceleration_anomaly: float
    torque_anomaly: float
    velocity_weight: float
    importance: float
    critical: bool
    reason: str
    sees: bool = False


class _Channel:
    """Anomaly of a vector's rate of change against its own last ``window_s``.

    The rate is taken over ``step_s`` whatever the sensor's rate, since the noise in a difference
    of neighbours grows with it, and jitter and bursts would count as motion. The sample under
    judgement is not part of the statistics, lest a spike hide itself.
    """

    def __init__(self, config: TriggerConfig, eps: float, smooth_s: float | None = None) -> None:
        self._eps = eps
        self._step_ns = round(config.step_s * 1e9)
        self._repeat_ns = round(config.repeat_s * 1e9)
        self._gap_ns = round(config.gap_s * 1e9)
        self._recent: deque[tuple[int, list[float]]] = deque()
        self._window = SlidingWindow(config.window_s)
        self._smooth = SlidingWindow(smooth_s) if smooth_s is not None else None
        self.clear()

    def clear(self) -> None:
        self._recent.clear()
        self._window.clear()
        if self._smooth is not None:
            self._smooth.clear()
        self.level = math.nan
        self.anomaly = 0.0
        self.ready = False
        self.constant = False

    def update(self, stamp_ns: int, values: list[float]) -> bool:
        """Takes a newer measurement; False, and nothing changes, if it is not one of numbers.

        A measurement sent again changes nothing either: the next new one is compared over the
        time since, and so is not taken for a jump.
        """
        recent = self._recent
        if recent:
            newest_ns, newest = recent[-1]
            if stamp_ns - newest_ns > self._gap_ns or len(values) != len(newest):
                self.clear()
            elif values == newest and stamp_ns - newest_ns < self._repeat_ns:
                return True
        first_ns = stamp_ns - self._step_ns
        while len(recent) > 1 and recent[1][0] <= first_ns:
            recent.popleft()
        before_ns, before = recent[0] if recent else (stamp_ns, [0.0] * len(values))
        change = math.dist(values, before)
        if not change <= ABSURD:
            return False
        recent.append((stamp_ns, values))
        if before_ns <= first_ns:
            self._judge(stamp_ns, change / ((stamp_ns - before_ns) * 1e-9))
        return True

    def _judge(self, stamp_ns: int, level: float) -> None:
        if self._smooth is not None:
            self._smooth.push(stamp_ns, level)
            level = self._smooth.mean()
        self.level = level
        window = self._window
        self.ready = window.filled(stamp_ns)
        if self.ready:
            mean, deviation = window.mean_std()
            self.constant = mean == 0.0 and level == 0.0
            self.anomaly = max(0.0, (level - mean) / (deviation + self._eps))
        window.push(stamp_ns, level)


class Triggers:
    """Joint samples to action importance, one at a time, each in constant time.

    Dual threshold: critical when w*A > theta_compat or (1-w)*T > theta_redundancy. Causal, and a
    function of the samples alone: the same samples give the same signals, live and replayed.
    Nothing is critical before ``window_s`` of samples, after a gap, or after a reset of the
    clock (stamps more than 1 s back); stamps that repeat or go back less are counted in
    ``rejected`` and change nothing. Without effort the acceleration decides alone.
    Not thread-safe: one joint_states callback drives it.
    """

    def __init__(self, config: TriggerConfig | None = None) -> None:
        self.config = config or TriggerConfig()
        self.rejected: Counter[str] = Counter()
        self.problem = ""
        """Why the torque channel is silent; empty when it is not."""
        self._acceleration = _Channel(self.config, self.config.acceleration_eps)
        self._torque = _Channel(self.config, self.config.torque_eps, self.config.torque_window_s)
        self._reset_ns = round(CLOCK_RESET_S * 1e9)
        self.reset()

    def reset(self) -> None:
        """Back to a cold start; counts stay."""
        self._acceleration.clear()
        self._torque.clear()
        self._stamp_ns: int | None = None

    def update(self, sample: JointSample) -> TriggerSignals:
        """Takes the next joint sample: (n,) velocity in rad/s, (n,) effort in Nm or None."""
        stamp_ns = sample.stamp_ns
        last_ns = self._stamp_ns
        if last_ns is not None and stamp_ns <= last_ns:
            if last_ns - stamp_ns <= self._reset_ns:
                return self._reject(stamp_ns, "stamp", "stamp is not newer")
            self.reset()
        velocity = sample.velocity.tolist()
        acceleration, torque = self._acceleration, self._torque
        if not acceleration.update(stamp_ns, velocity):
            return self._reject(stamp_ns, "velocity", "velocity is not finite")
        self._stamp_ns = stamp_ns
        config = self.config
        effort = sample.effort
        problem = ""
        if effort is None:
            problem = "no effort, acceleration alone"
        elif not torque.update(stamp_ns, effort.tolist()):
            self.rejected["effort"] += 1
            problem = "effort is not finite, acceleration alone"
        elif torque.constant:
            problem = "effort is constant, acceleration alone"
        self.problem = problem
        if problem:
            # There is nothing to share the weight with.
            weight, level, t_anomaly = 1.0, math.nan, 0.0
        else:
            weight = min(1.0, math.hypot(*velocity) / config.speed_ref)
            level, t_anomaly = torque.level, torque.anomaly
        a_anomaly = acceleration.anomaly
        a_part, t_part = weight * a_anomaly, (1.0 - weight) * t_anomaly
        critical = True
        if a_part > config.theta_compat:
            reason = "acceleration"
        elif t_part > config.theta_redundancy:
            reason = "torque"
        else:
            critical = False
            reason = problem or "redundant" if acceleration.ready else "cold start"
        return TriggerSignals(
            stamp_ns,
            acceleration.level,
            level,
            a_anomaly,
            t_anomaly,
            weight,
            a_part + t_part,
            critical,
            reason,
            not problem and acceleration.ready and torque.ready,
        )

    def _reject(self, stamp_ns: int, key: str, reason: str) -> TriggerSignals:
        self.rejected[key] += 1
        nan = math.nan
        return TriggerSignals(stamp_ns, nan, nan, 0.0, 0.0, 0.0, 0.0, False, reason)
