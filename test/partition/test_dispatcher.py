import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers, TriggerSignals

MS = 1_000_000
CONFIG = TriggerConfig(window_s=0.6, cooldown_s=0.2)


def signal(stamp_ms: int, critical: bool = True) -> TriggerSignals:
    return TriggerSignals(stamp_ms * MS, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, critical, "torque")


def test_a_moment_that_stays_critical_preempts_once_per_cooldown() -> None:
    dispatcher = Dispatcher(TriggerConfig(cooldown_s=0.3))
    preempted = [ms for ms in range(0, 1000, 10) if dispatcher.update(signal(ms))]
    assert preempted == [0, 300, 600, 900]
    assert (dispatcher.preemptions, dispatcher.suppressed) == (4, 96)


def test_what_is_redundant_keeps_the_chunk() -> None:
    dispatcher = Dispatcher()
    assert not any(dispatcher.update(signal(ms, critical=False)) for ms in range(0, 1000, 10))


def test_a_clock_that_is_set_back_ends_the_cooldown() -> None:
    dispatcher = Dispatcher()
    assert dispatcher.update(signal(50_000))
    assert dispatcher.update(signal(2_000))
    assert not dispatcher.update(signal(2_100))


class Robot(RuleBasedStateMachine):
    """A robot whose joints, sensors, driver and clock do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers, self.dispatcher = Triggers(CONFIG), Dispatcher(CONFIG)
        self.rng = np.random.default_rng(0)
        self.stamp_ns = 10**18
        self.warm_ns = self.stamp_ns + round(CONFIG.window_s * 1e9)
        self.preempted_ns: int | None = None
        self.velocity, self.effort = np.zeros(7), np.ones(7)
        self.silent_effort = False

    def send(self, stamp_ns: int, velocity: np.ndarray, effort: np.ndarray) -> TriggerSignals:
        sample = JointSample(
            stamp_ns, np.zeros(7), velocity, None if self.silent_effort else effort
        )
        signals = self.triggers.update(sample)
        assert np.isfinite(signals[3:7]).all()
        assert 0.0 <= signals.velocity_weight <= 1.0
        assert signals.importance >= 0.0
        assert signals.reason
        preempt = self.dispatcher.update(signals)
        if not signals.critical:
            assert not preempt
            return signals
        assert stamp_ns >= self.warm_ns, "a trigger at a cold start"
        due = self.preempted_ns is None or stamp_ns - self.preempted_ns >= CONFIG.cooldown_s * 1e9
        assert preempt == due
        if preempt:
            self.preempted_ns = stamp_ns
        return signals

    def step(self, velocity: np.ndarray, effort: np.ndarray) -> TriggerSignals:
        self.stamp_ns += 10 * MS
        self.velocity, self.effort = velocity, effort
        return self.send(self.stamp_ns, velocity, effort)

    def begin_again(self) -> None:
        self.warm_ns = self.stamp_ns + round(CONFIG.window_s * 1e9)

    @rule(count=st.integers(1, 80), speed=st.floats(-1.5, 1.5))
    def moves(self, count: int, speed: float) -> None:
        for _ in range(count):
            change = np.clip(speed - self.velocity, -0.005, 0.005)
            self.step(self.velocity + change, self.effort + self.rng.normal(0, 0.02, 7))

    @rule(jump=st.floats(50, 1000))
    def touches_something_after_a_rest(self, jump: float) -> None:
        for _ in range(100):
            self.step(np.zeros(7), self.effort + self.rng.normal(0, 0.02, 7))
        touch = self.step(np.zeros(7), self.effort + jump)
        assert touch.critical != self.silent_effort

    @rule(speed=st.floats(-3, 3))
    def is_pushed(self, speed: float) -> None:
        self.step(np.full(7, speed), self.effort)

    @rule(count=st.integers(1, 30))
    def driver_repeats_itself(self, count: int) -> None:
        for _ in range(count):
            self.step(self.velocity, self.effort)

    @rule(back_ms=st.integers(0, 1000))
    def a_late_message_comes(self, back_ms: int) -> None:
        assert not self.send(
            self.stamp_ns - back_ms * MS, np.full(7, 5.0), np.full(7, 500.0)
        ).critical

    @rule(bad=st.sampled_from((np.nan, np.inf, -np.inf, 1e282)), joint=st.integers(0, 6))
    def a_sensor_fails(self, bad: float, joint: int) -> None:
        broken = self.velocity.copy()
        broken[joint] = bad
        assert not self.send(self.stamp_ns + 5 * MS, broken, self.effort).critical

    @rule(silent=st.booleans())
    def effort_comes_and_goes(self, silent: bool) -> None:
        self.silent_effort = silent

    @rule(ms=st.integers(251, 900))
    def nothing_comes(self, ms: int) -> None:
        self.stamp_ns += ms * MS
        self.begin_again()
        self.step(self.velocity, self.effort)

    @rule(back_s=st.integers(2, 3600))
    def clock_is_reset(self, back_s: int) -> None:
        self.stamp_ns -= back_s * 10**9
        self.preempted_ns = None
        self.begin_again()
        self.step(self.velocity, self.effort)


TestRobot = Robot.TestCase
TestRobot.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
