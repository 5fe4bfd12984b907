import numpy as np
import pytest

from ros_vla_accel.kinematics.joints import JointReader, JointStateError

MS = 1_000_000


def refusal(reader: JointReader, *message: object) -> JointStateError:
    with pytest.raises(JointStateError) as caught:
        reader.read(*message)  # type: ignore[arg-type]
    return caught.value


def test_order_follows_the_configured_names_and_extra_joints_are_ignored() -> None:
    reader = JointReader(["a", "b"])
    sample = reader.read(["x", "b", "a"], [9, 2, 1], [90, 20, 10], [0.9, 0.2, 0.1], MS)
    assert sample.position.tolist() == [1, 2]
    assert sample.velocity.tolist() == [10, 20]
    assert sample.effort is not None
    assert sample.effort.tolist() == [0.1, 0.2]


def test_order_may_change_between_messages() -> None:
    reader = JointReader(["a", "b"])
    reader.read(["a", "b"], [1, 2], [], [], MS)
    assert reader.read(["b", "a"], [2, 1], [], [], 2 * MS).position.tolist() == [1, 2]


def test_missing_joint_is_named_with_what_is_there() -> None:
    error = refusal(JointReader(["a", "b"]), ["a", "c"], [1, 2], [], [], MS)
    assert error.reason == "missing"
    assert "'b'" in str(error)
    assert "a, c" in str(error)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ((["a", "b"], [np.nan, 0], [], [], MS), "not_finite"),
        ((["a", "b"], [0, np.inf], [], [], MS), "not_finite"),
        ((["a", "b"], [0, 2e6], [], [], MS), "absurd"),
        ((["a", "b"], [0, 0], [0, np.nan], [], MS), "not_finite"),
        ((["a", "b"], [0, 0], [], [np.nan, 1], MS), "not_finite"),
        ((["a", "b"], [0], [], [], MS), "length"),
        ((["a", "b"], [0, 0], [1, 2, 3], [], MS), "length"),
        ((["a", "b"], [], [], [], MS), "missing"),
        (([], [], [], [], MS), "names"),
        ((["a", "b", "a"], [0, 0, 0], [], [], MS), "names"),
    ],
)
def test_bad_message_is_refused_and_counted(message: tuple[object, ...], reason: str) -> None:
    reader = JointReader(["a", "b"])
    assert refusal(reader, *message).reason == reason
    assert reader.rejected == {reason: 1}


def test_error_names_joint_and_value() -> None:
    error = refusal(JointReader(["a", "b"]), ["b", "a"], [np.nan, 0], [], [], MS)
    assert "position nan for 'b'" in str(error)


def test_refused_message_leaves_no_trace() -> None:
    reader = JointReader(["a"])
    reader.read(["a"], [1.0], [], [], 10 * MS)
    refusal(reader, ["a"], [np.nan], [], [], 500 * MS)
    refusal(reader, ["b"], [3.0], [], [], 500 * MS)
    assert reader.read(["a"], [2.0], [], [], 20 * MS).velocity[0] == pytest.approx(100.0)


def test_missing_velocity_is_differentiated_from_positions() -> None:
    reader = JointReader(["a"])
    assert reader.read(["a"], [1.0], [], [], 0).velocity.tolist() == [0.0]
    assert reader.read(["a"], [1.5], [], [], 100 * MS).velocity[0] == pytest.approx(5.0)


def test_velocity_of_nan_alone_counts_as_not_published() -> None:
    reader = JointReader(["a", "b"])
    sample = reader.read(["a", "b"], [1, 2], [np.nan, np.nan], [np.nan, np.nan], MS)
    assert sample.velocity.tolist() == [0, 0]
    assert sample.effort is None


def test_missing_velocity_is_an_error_where_differentiation_is_off() -> None:
    error = refusal(JointReader(["a"], differentiate=False), ["a"], [1.0], [], [], MS)
    assert "kinematics.differentiate" in str(error)


@pytest.mark.parametrize("stamp_ns", [100 * MS, 50 * MS])
def test_repeated_or_backward_stamp_is_refused(stamp_ns: int) -> None:
    reader = JointReader(["a"])
    reader.read(["a"], [1.0], [], [], 100 * MS)
    assert refusal(reader, ["a"], [1.0], [], [], stamp_ns).reason == "stamp"


def test_reset_clock_is_accepted_and_not_differentiated_across() -> None:
    reader = JointReader(["a"])
    reader.read(["a"], [1.0], [], [], 5000 * MS)
    sample = reader.read(["a"], [9.0], [], [], 10 * MS)
    assert sample.velocity.tolist() == [0.0]
    assert reader.clock_resets == 1
    assert not reader.rejected


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_reader_needs_distinct_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        JointReader(names)


def test_velocities_that_were_never_other_than_zero_are_differentiated() -> None:
    reader = JointReader(["a"])
    reader.read(["a"], [1.0], [0.0], [], 0)
    assert reader.read(["a"], [1.5], [0.0], [], 100 * MS).velocity[0] == pytest.approx(5.0)


def test_velocities_that_have_been_seen_are_believed_when_they_are_zero() -> None:
    reader = JointReader(["a"])
    reader.read(["a"], [1.0], [0.1], [], 0)
    assert reader.read(["a"], [1.5], [0.0], [], 100 * MS).velocity.tolist() == [0.0]


def test_efforts_that_were_never_other_than_zero_count_as_not_published() -> None:
    reader = JointReader(["a"])
    assert reader.read(["a"], [1.0], [], [0.0], 0).effort is None
    assert reader.read(["a"], [1.0], [], [0.5], 10 * MS).effort is not None
    assert reader.read(["a"], [1.0], [], [0.0], 20 * MS).effort is not None


def test_positions_repeated_by_a_slow_publisher_keep_their_velocity() -> None:
    reader = JointReader(["a"])
    speeds = [
        reader.read(["a"], [0.01 * (index // 2)], [], [], 10 * index * MS).velocity[0]
        for index in range(8)
    ]
    assert speeds[2:] == pytest.approx([0.5] * 6)


def test_positions_repeated_for_long_are_rest_and_motion_starts_from_the_last_one() -> None:
    reader = JointReader(["a"])
    for index in range(10):
        still = reader.read(["a"], [1.0 if index else 0.9], [], [], 10 * index * MS)
    assert still.velocity.tolist() == [0.0]
    moved = reader.read(["a"], [1.01], [], [], 100 * MS)
    assert moved.velocity[0] == pytest.approx(1.0)
