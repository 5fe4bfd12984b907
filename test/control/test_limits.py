import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros_vla_accel.control.limits import ActionLimits, Limiter

INF = float("inf")
VELOCITY = ActionLimits(
    names=("vx", "grip"), max_abs=(0.2, 1.0), max_step=(0.1, INF), hold=("zero", "keep")
)
POSITION = ActionLimits(
    names=("q1", "grip"),
    max_abs=(INF, 1.0),
    max_step=(0.05, INF),
    hold=("keep", "keep"),
    measured_joint=(1, -1),
    joint_names=("q0", "q1"),
    joint_lower=(-2.0, -1.0),
    joint_upper=(2.0, 1.0),
)


def test_command_within_the_limits_passes_unchanged() -> None:
    command, changed = Limiter(VELOCITY).apply([0.15, 1.0], [0.1, -1.0])
    assert not changed
    assert command.tolist() == [0.15, 1.0]


def test_speed_and_step_are_limited() -> None:
    limiter = Limiter(VELOCITY)
    assert limiter.apply([0.5, 0.0], [0.15, 0.0])[0].tolist() == [0.2, 0.0]
    command, changed = limiter.apply([0.2, 0.0], [-0.1, 0.0])
    assert changed
    assert command == pytest.approx([0.0, 0.0])


def test_first_command_of_a_column_has_no_step_limit() -> None:
    assert Limiter(VELOCITY).apply([0.2, 1.0], [np.nan, np.nan])[0].tolist() == [0.2, 1.0]


def test_position_is_clamped_to_the_range_of_its_joint() -> None:
    assert Limiter(POSITION).apply([3.0, 0.0], [0.98, 0.0])[0] == pytest.approx([1.0, 0.0])


def test_position_found_outside_its_range_walks_back_step_by_step() -> None:
    command, changed = Limiter(POSITION).apply([0.9, 0.0], [1.5, 0.0])
    assert changed
    assert command == pytest.approx([1.45, 0.0])


def test_joint_outside_its_range_is_named() -> None:
    limits = ActionLimits(
        names=("vx",),
        max_abs=(1.0,),
        max_step=(1.0,),
        hold=("zero",),
        joint_names=("q0", "q1"),
        joint_lower=(-1.0, -1.0),
        joint_upper=(1.0, 1.0),
    )
    assert Limiter(limits).joint_fault([0.0, 1.0]) is None
    assert "joint 'q1' is at 1.2000" in str(Limiter(limits).joint_fault([0.0, 1.2]))


def test_commanded_joint_outside_its_range_is_no_fault_since_commands_are_clamped() -> None:
    limiter = Limiter(POSITION)
    assert limiter.joint_fault([0.0, 1.5]) is None
    assert "'q0'" in str(limiter.joint_fault([2.5, 0.0]))


@given(
    actions=st.lists(st.tuples(*[st.floats(-1e30, 1e30)] * 2), min_size=1, max_size=20),
    start=st.floats(-0.2, 0.2),
)
def test_no_sequence_of_actions_leaves_the_limits(
    actions: list[tuple[float, float]], start: float
) -> None:
    limiter = Limiter(VELOCITY)
    previous = np.array([start, np.nan])
    for action in actions:
        command, _ = limiter.apply(action, previous)
        assert np.all(np.abs(command) <= np.array([0.2, 1.0]) + 1e-8)
        assert abs(command[0] - previous[0]) <= 0.1 + 1e-8
        previous = command


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_abs": (0.2,)}, "max_abs has 1 values for 2 action columns"),
        ({"max_step": (0.0, 1.0)}, "max_step of 'vx' is 0.0"),
        ({"hold": ("zero", "drop")}, "hold of 'grip' is 'drop'"),
        ({"lower": (0.0, 0.0)}, "together"),
        ({"lower": (0.0, 0.0), "upper": (1.0, 0.0)}, "limits of 'grip'"),
        ({"joint_lower": (0.0,)}, "joint_lower has 1 values for 0 joint_names"),
        ({"names": ()}, "at least one"),
    ],
)
def test_senseless_limits_are_errors(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ActionLimits(**{**vars(VELOCITY), **change})  # type: ignore[arg-type]
