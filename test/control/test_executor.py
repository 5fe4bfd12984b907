from dataclasses import replace

import numpy as np
import pytest

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.contracts import ExecutorCode as State
from ros_vla_accel.control.executor import Executor, ExecutorConfig, Tick
from ros_vla_accel.control.limits import ActionLimits
from ros_vla_accel.control.watchdog import Watchdog
from ros_vla_accel.kinematics.joints import JointSample

MS = 1_000_000
PERIOD = 50 * MS
INF = float("inf")
LIMITS = ActionLimits(
    names=("vx", "vy", "grip"),
    max_abs=(0.2, 0.2, 1.0),
    max_step=(0.1, 0.1, INF),
    hold=("zero", "zero", "keep"),
    joint_names=("q0",),
    joint_lower=(-1.0,),
    joint_upper=(1.0,),
)


class Arm:
    """An executor with its clock, fed a fresh joint state unless told otherwise."""

    def __init__(self, limits: ActionLimits = LIMITS, **settings: object) -> None:
        config = ExecutorConfig(**{"armed": True, **settings})
        self.executor = Executor(config, limits)
        self.now_ns = 1000 * MS
        self.joint = 0.0

    def chunk(self, action: list[float], episode: int = 1, rows: int = 16) -> str:
        actions = np.tile(np.array(action, np.float32), (rows, 1))
        offered = ActionChunk(actions, 0.05, self.now_ns, 7, episode, "edge")
        return self.executor.offer(offered, self.now_ns).code

    def stop(self) -> None:
        rows = np.zeros((0, 3), np.float32)
        self.executor.offer(ActionChunk(rows, 0.05, 0, 8, 1, "stop"), self.now_ns)

    def sample(self) -> JointSample:
        return JointSample(self.now_ns, np.array([self.joint]), np.zeros(1))

    def tick(self, joints: JointSample | str | None = "fresh") -> Tick:
        sample = self.sample() if isinstance(joints, str) else joints
        tick = self.executor.tick(self.now_ns, sample)
        self.now_ns += PERIOD
        return tick

    def ticks(self, count: int) -> list[Tick]:
        return [self.tick() for _ in range(count)]


def test_nothing_is_sent_before_the_first_chunk() -> None:
    tick = Arm().tick()
    assert tick.state is State.IDLE
    assert not tick.send
    assert not tick.command.any()


def test_rows_are_played_within_the_limits_and_counted() -> None:
    arm = Arm()
    arm.chunk([0.5, 0.05, -1.0])
    first, second, third = arm.ticks(3)
    assert first.command == pytest.approx([0.1, 0.05, -1.0])
    assert second.command == pytest.approx([0.2, 0.05, -1.0])
    assert (third.state, third.row, third.request_id) == (State.PLAYING, 2, 7)
    assert (third.executed_rows, third.remaining_rows) == (3, 13)
    assert (third.ticks, third.limited_ticks, third.chunks_accepted) == (3, 3, 1)
    assert third.send


def test_chunk_that_runs_out_starves_and_ramps_to_rest_with_the_gripper_kept() -> None:
    arm = Arm()
    arm.chunk([0.2, -0.1, 0.7], rows=3)
    arm.ticks(3)
    first, second, third = arm.ticks(3)
    assert first.state is State.STARVED
    assert first.command == pytest.approx([0.1, -0.05, 0.7])
    assert second.command == pytest.approx([0.0, 0.0, 0.7])
    assert third.command == pytest.approx([0.0, 0.0, 0.7])
    assert third.starved_ticks == 3
    assert "ended 0.10 s ago" in third.reason


def test_hold_is_over_within_hold_ticks_however_small_the_step() -> None:
    arm = Arm(replace(LIMITS, max_step=(0.001, 0.001, INF)), hold_ticks=4)
    arm.chunk([0.2, 0.2, 0.0], rows=100)
    fast = arm.ticks(100)[-1].command[0]
    assert fast == pytest.approx(0.1)
    speeds = [tick.command[0] for tick in arm.ticks(5)]
    assert speeds == pytest.approx([0.075, 0.05, 0.025, 0.0, 0.0])


def test_hold_without_a_step_limit_stops_at_once() -> None:
    arm = Arm(replace(LIMITS, max_step=(INF, INF, INF)))
    arm.chunk([0.2, 0.2, 0.0], rows=1)
    arm.tick()
    assert not arm.tick().command[:2].any()


def test_stop_is_idle_and_not_starved() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 1.0])
    arm.tick()
    arm.stop()
    tick = arm.ticks(3)[-1]
    assert (tick.state, tick.starved_ticks, tick.request_id) == (State.IDLE, 0, 0)
    assert tick.command == pytest.approx([0.0, 0.0, 1.0])
    assert tick.send


def test_missing_joint_states_are_a_fault() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    tick = arm.tick(None)
    assert tick.state is State.FAULT
    assert "no joint states" in tick.reason


@pytest.mark.parametrize(("age_ms", "text"), [(300, "0.30 s old"), (-300, "use_sim_time")])
def test_stale_joint_states_are_a_fault_that_ramps_to_rest(age_ms: int, text: str) -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.5])
    arm.tick()
    tick = arm.tick(replace(arm.sample(), stamp_ns=arm.now_ns - age_ms * MS))
    assert tick.state is State.FAULT
    assert text in tick.reason
    assert tick.command == pytest.approx([0.0, 0.0, 0.5])


def test_after_a_fault_only_a_newer_observation_moves_the_arm() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    arm.tick()
    arm.tick(None)
    tick = arm.tick()
    assert tick.state is State.STARVED
    assert "a fault: no joint states" in tick.reason
    arm.chunk([0.1, 0.0, 0.0])
    assert arm.tick().state is State.PLAYING


def test_clock_reset_during_a_fault_voids_what_was_accepted_before_it() -> None:
    arm = Arm()
    arm.tick(None)
    arm.chunk([0.1, 0.0, 0.0])
    arm.now_ns -= 1000 * MS
    for _ in range(21):
        arm.tick(None)
    assert arm.tick().state is State.IDLE


def test_joint_outside_its_range_latches_even_over_a_newer_episode() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    arm.joint = 1.01
    assert "joint 'q0' is at 1.0100" in arm.tick().reason
    arm.joint = 0.9
    arm.chunk([0.1, 0.0, 0.0])
    assert arm.tick().state is State.FAULT
    arm.chunk([0.1, 0.0, 0.0], episode=2)
    assert arm.tick().state is State.FAULT


def test_arming_anew_clears_a_latched_fault() -> None:
    arm = Arm()
    arm.joint = 1.01
    arm.tick()
    arm.joint = 0.0
    assert arm.tick().state is State.FAULT
    arm.executor.arm(False)
    arm.executor.arm(True)
    assert arm.tick().state is State.IDLE


def test_disarmed_everything_runs_and_nothing_is_sent() -> None:
    arm = Arm(armed=False)
    arm.chunk([0.1, 0.0, 0.0])
    tick = arm.tick()
    assert (tick.state, tick.send, tick.armed) == (State.PLAYING, False, False)
    assert tick.command == pytest.approx([0.1, 0.0, 0.0])


def test_disarming_sends_the_ramp_to_rest_and_then_nothing() -> None:
    arm = Arm()
    arm.chunk([0.2, 0.0, 0.3])
    arm.ticks(2)
    arm.executor.arm(False)
    ticks = arm.ticks(3)
    assert [tick.send for tick in ticks] == [True, True, False]
    assert ticks[1].command == pytest.approx([0.0, 0.0, 0.3])


def test_arming_starts_from_rest() -> None:
    arm = Arm(armed=False)
    arm.chunk([0.2, 0.0, 0.0])
    arm.ticks(4)
    arm.executor.arm(True)
    assert arm.tick().command == pytest.approx([0.1, 0.0, 0.0])


def test_first_position_command_starts_from_the_measured_joint() -> None:
    limits = ActionLimits(
        names=("q0",),
        max_abs=(INF,),
        max_step=(0.02,),
        hold=("keep",),
        measured_joint=(0,),
        joint_names=("q0",),
        joint_lower=(-1.0,),
        joint_upper=(1.0,),
    )
    arm = Arm(limits)
    arm.joint = 0.5
    arm.chunk([0.9], rows=2)
    assert [tick.command[0] for tick in arm.ticks(4)] == pytest.approx([0.52, 0.54, 0.54, 0.54])


def test_late_tick_skips_rows_and_is_counted() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    arm.tick()
    arm.now_ns += 4 * PERIOD
    tick = arm.tick()
    assert (tick.row, tick.executed_rows, tick.late_ticks) == (5, 2, 1)


def test_halt_holds_and_asks_for_a_newer_observation() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    arm.tick()
    tick = arm.executor.halt(arm.now_ns, "no control tick for 0.5 s")
    assert (tick.state, tick.reason) == (State.FAULT, "no control tick for 0.5 s")
    assert not tick.command[0]
    assert arm.tick().state is State.STARVED


def test_dropped_chunks_are_counted_by_reason() -> None:
    arm = Arm()
    arm.chunk([0.1, 0.0, 0.0])
    assert arm.chunk([0.1, 0.0, 0.0]) == "older_observation"
    arm.chunk([float("nan"), 0.0, 0.0], episode=2)
    tick = arm.tick()
    assert tick.drops == {"older_observation": 1, "not_finite": 1}
    assert tick.chunks_dropped == 2


@pytest.mark.parametrize("wait_s", [0.0, 2.5, float("inf"), float("nan")])
def test_an_executor_that_would_wait_too_long_is_refused(wait_s: float) -> None:
    with pytest.raises(ValueError, match="joint_timeout_s"):
        ExecutorConfig(joint_timeout_s=wait_s)


def test_arming_again_during_the_ramp_to_rest_still_comes_to_rest() -> None:
    arm = Arm()
    arm.chunk([0.2, 0.0, 0.3])
    arm.ticks(2)
    arm.executor.arm(False)
    assert arm.tick().command[0] > 0
    arm.stop()
    arm.executor.arm(True)
    ticks = arm.ticks(4)
    assert all(tick.send for tick in ticks)
    assert ticks[-1].command == pytest.approx([0.0, 0.0, 0.3])


def test_after_a_fault_a_position_starts_from_where_the_joint_is_then() -> None:
    limits = ActionLimits(
        names=("q0",),
        max_abs=(float("inf"),),
        max_step=(0.05,),
        hold=("keep",),
        measured_joint=(0,),
        joint_names=("q0",),
    )
    arm = Arm(limits)
    arm.joint = 0.8
    arm.chunk([0.8])
    arm.tick()
    arm.tick(None)
    arm.joint = -0.4
    arm.chunk([0.8])
    assert arm.tick().command == pytest.approx([-0.35])


def test_watchdog_expires_without_food_on_the_steady_clock() -> None:
    dog = Watchdog(0.5)
    assert dog.expired(0)
    dog.feed(1000 * MS)
    assert not dog.expired(1500 * MS)
    assert dog.expired(1501 * MS)
    assert dog.age_s(2000 * MS) == pytest.approx(1.0)
