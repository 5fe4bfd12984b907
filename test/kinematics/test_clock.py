"""Header stamps of another clock are moved to ours, once, by the first messages."""

import pytest

from ros_vla_accel.kinematics.clock import SAMPLES, ClockAlignment
from ros_vla_accel.kinematics.intake import JointIntake

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS


def offset_after(differences_ms):
    alignment = ClockAlignment()
    for index, difference in enumerate(differences_ms):
        header_ns = START + index * 10 * MS
        alignment.observe(header_ns, header_ns + round(difference * MS))
    assert alignment.settled
    return alignment.offset_ns / MS


@pytest.mark.parametrize("offset_ms", [-3200, 200])
def test_a_constant_offset_is_found_despite_late_messages_and_a_corrupt_stamp(offset_ms):
    differences = [offset_ms + delay for delay in [90, 1, 2, 60, 3] * 4]
    differences[7] = 1e9
    assert offset_after(differences) == pytest.approx(offset_ms, abs=5)


def test_the_delay_of_the_way_is_no_offset():
    assert offset_after([4, 30, 80, 5] * 5) == 0


def test_a_backlog_that_arrives_at_once_is_no_offset():
    assert offset_after([10 * (SAMPLES - index) for index in range(SAMPLES)]) == 0


def test_differences_that_do_not_agree_are_no_offset():
    assert offset_after([500 * index for index in range(SAMPLES)]) == 0


def take(intake, index, offset_ms, header=True):
    received_ns = START + index * 10 * MS
    header_ns = received_ns - offset_ms * MS if header else 0
    return intake.take(["a"], [0.001 * index], [], [], header_ns, received_ns)


def test_samples_settle_after_the_first_messages_and_then_bear_our_stamps():
    intake = JointIntake(["a"])
    settled = []
    for index in range(SAMPLES + 2):
        sample = take(intake, index, offset_ms=-3200)
        settled.append(intake.settled)
    assert settled == [False] * SAMPLES + [True] * 2
    assert sample.stamp_ns == START + (SAMPLES + 1) * 10 * MS
    assert sample.velocity[0] == pytest.approx(0.1)


def test_messages_without_a_stamp_bear_the_time_they_arrived():
    intake = JointIntake(["a"])
    for index in range(SAMPLES + 1):
        sample = take(intake, index, 0, header=False)
    assert intake.settled
    assert sample.stamp_ns == START + SAMPLES * 10 * MS


def test_a_reset_clock_is_estimated_anew():
    intake = JointIntake(["a"])
    for index in range(SAMPLES + 1):
        take(intake, index, 0)
    for index in range(SAMPLES + 1, 2 * SAMPLES + 1):
        sample = take(intake, index, offset_ms=5000)
        assert not intake.settled
    sample = take(intake, 2 * SAMPLES + 1, offset_ms=5000)
    assert intake.settled
    assert sample.stamp_ns == START + (2 * SAMPLES + 1) * 10 * MS


def test_an_offset_that_is_not_trusted_is_told_and_moves_no_stamp():
    alignment = ClockAlignment(trusted=False)
    for index in range(SAMPLES):
        assert alignment.observe(index * 10 * MS, index * 10 * MS + 5000 * MS) == 0
    assert alignment.found_ns == 5000 * MS
    assert alignment.offset_ns == 0
    assert alignment.settled
