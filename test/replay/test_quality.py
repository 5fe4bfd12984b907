"""Each ugliness of a recording is handled, and counted under its name."""

from dataclasses import replace

import numpy as np
import pytest
from bags import NAMES, START_NS, STEP_NS, changed, cut, data_file, motion, write1, write2

from ros_vla_accel.replay.pipeline import ReplayConfig, ReplayError, replay
from ros_vla_accel.replay.topics import parse_remaps

MESSAGES = motion()
SOME = [150, 151, 200]


def run(tmp_path, messages, **settings):
    return replay(write2(tmp_path / "bag", messages), ReplayConfig(**settings))


def test_a_clean_recording_has_nothing_to_count(tmp_path):
    result = run(tmp_path, MESSAGES)
    assert result.quality.as_dict() == {}
    assert result.quality.samples == len(MESSAGES)
    assert result.quality.notes == []


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": ()}, "empty_name"),
        ({"position": ()}, "empty_position"),
        ({"position": [0.0, 1e282, 0.0, 0.0]}, "absurd"),
        ({"velocity": [0.0, 0.0, np.nan, 0.0]}, "not_finite"),
        ({"effort": [np.inf, 0.0, 0.0, 0.0]}, "not_finite"),
        ({"position": [0.1, 0.2]}, "short"),
        ({"velocity": [0.1] * 5}, "short"),
        ({"name": ("j0", "j1", "j2", "x")}, "missing_joint"),
        ({"name": ("j0", "j1", "j2", "j3", "j3"), "position": [0] * 5}, "duplicate_joint"),
    ],
)
def test_a_message_that_nothing_should_act_on_is_refused(tmp_path, fields, kind):
    clean = run(tmp_path / "clean", MESSAGES)
    result = run(tmp_path, changed(MESSAGES, SOME, **fields), joints=NAMES)
    assert result.quality.counts[kind] == len(SOME)
    assert result.quality.refused == len(SOME)
    assert result.quality.samples == len(MESSAGES) - len(SOME)
    assert np.abs(result.samples["speed"]).max() == pytest.approx(clean.samples["speed"].max())


def test_missing_velocities_are_differentiated(tmp_path):
    clean = run(tmp_path / "clean", MESSAGES)
    result = run(tmp_path, changed(MESSAGES, range(len(MESSAGES)), velocity=()))
    assert result.quality.as_dict() == {"empty_velocity": len(MESSAGES)}
    assert np.abs(result.samples["speed"] - clean.samples["speed"]).max() < 0.01


def test_velocities_that_are_all_zero_are_differentiated_while_the_arm_moves(tmp_path):
    clean = run(tmp_path / "clean", MESSAGES)
    result = run(tmp_path, changed(MESSAGES, range(len(MESSAGES)), velocity=np.zeros(4)))
    assert result.quality.counts["zero_velocity"] == len(MESSAGES) - 1
    assert np.abs(result.samples["speed"] - clean.samples["speed"]).max() < 0.01


@pytest.mark.parametrize(("effort", "kind"), [((), "empty_effort"), ([0.0] * 4, "zero_effort")])
def test_without_efforts_the_acceleration_decides_alone(tmp_path, effort, kind):
    result = run(tmp_path, changed(MESSAGES, range(len(MESSAGES)), effort=effort))
    assert result.quality.as_dict() == {kind: len(MESSAGES)}
    assert not result.samples["torque_anomaly"].any()
    assert result.samples["acceleration_anomaly"].any()


@pytest.mark.parametrize("offset_s", [-3.2, 0.2])
def test_a_constant_clock_offset_is_aligned_by_receive_time(tmp_path, offset_s):
    """receive - header = offset_s."""
    clean = run(tmp_path / "clean", MESSAGES)
    late = [replace(m, header_ns=m.received_ns - round(offset_s * 1e9)) for m in MESSAGES]
    result = run(tmp_path, late)
    assert result.quality.offsets_s == {"/joint_states": pytest.approx(offset_s, abs=0.005)}
    assert "aligned by receive time" in result.quality.notes[0]
    assert f"{-offset_s:+.3f} s" in result.quality.notes[0]
    assert result.samples["t_s"] == pytest.approx(clean.samples["t_s"], abs=0.005)
    assert np.array_equal(result.decisions["bits"], clean.decisions["bits"])
    assert not result.quality.as_dict()


def test_messages_without_a_stamp_take_the_receive_stamp(tmp_path):
    result = run(tmp_path, changed(MESSAGES, range(len(MESSAGES)), header_ns=0))
    assert result.quality.as_dict() == {"zero_stamp": len(MESSAGES)}
    assert np.diff(result.samples["t_s"]) == pytest.approx(0.01)


def test_a_burst_changes_no_decision(tmp_path):
    clean = run(tmp_path / "clean", MESSAGES)
    late_ns = MESSAGES[229].received_ns
    held_back = [
        replace(m, received_ns=late_ns - 10_000 * (229 - i)) if 200 <= i < 229 else m
        for i, m in enumerate(MESSAGES)
    ]
    result = run(tmp_path, held_back)
    assert result.quality.as_dict() == {"burst": 29}
    for column, values in clean.decisions.items():
        assert np.array_equal(result.decisions[column], values, equal_nan=True)


def test_samples_repeated_under_newer_stamps_are_no_stop(tmp_path):
    clean = run(tmp_path / "clean", MESSAGES)
    doubled = [
        replace(MESSAGES[i - i % 2], header_ns=m.header_ns, received_ns=m.received_ns, velocity=())
        for i, m in enumerate(MESSAGES)
    ]
    result = run(tmp_path, doubled)
    assert result.quality.counts["repeated"] == len(MESSAGES) // 2
    moving = clean.samples["speed"][:-1] > 0.3
    assert (result.samples["speed"][:-1][moving] > 0.1).all()


@pytest.mark.parametrize(
    ("back_ns", "kind"), [(0, "duplicate_stamp"), (25_000_000, "backward_stamp")]
)
def test_stamps_that_do_not_rise_are_refused(tmp_path, back_ns, kind):
    messages = [
        replace(m, header_ns=MESSAGES[i - 1].header_ns - back_ns) if i in (150, 200) else m
        for i, m in enumerate(MESSAGES)
    ]
    result = run(tmp_path, messages)
    assert result.quality.as_dict() == {kind: 2}
    assert result.quality.refused == 2


def test_a_clock_that_is_reset_starts_afresh(tmp_path):
    messages = [
        replace(m, header_ns=m.header_ns - (10**10 if i >= 200 else 0))
        for i, m in enumerate(MESSAGES)
    ]
    result = run(tmp_path, messages)
    assert result.quality.as_dict() == {"clock_reset": 1}
    assert result.quality.refused == 0


def test_after_a_gap_motion_starts_afresh_at_full_precision(tmp_path):
    result = run(tmp_path, MESSAGES[:200] + MESSAGES[240:])
    assert result.quality.as_dict() == {"gap": 1}
    t_s, bits = result.decisions["t_s"], result.decisions["bits"]
    assert (bits[(t_s > 2.4) & (t_s < 2.85)] == 16).all()


def test_a_changed_joint_order_is_matched_by_name(tmp_path):
    clean = run(tmp_path / "clean", MESSAGES)
    turned = changed(
        MESSAGES,
        range(200, len(MESSAGES)),
        name=NAMES[::-1],
        position=lambda m: m.position[::-1],
        velocity=lambda m: m.velocity[::-1],
        effort=lambda m: m.effort[::-1],
    )
    result = run(tmp_path, turned)
    assert result.quality.as_dict() == {"order_change": 1}
    for column, values in clean.samples.items():
        assert np.array_equal(result.samples[column], values, equal_nan=True)


def test_a_cut_file_is_replayed_up_to_the_damage(tmp_path):
    folder = write2(tmp_path / "bag", MESSAGES)
    cut(data_file(folder), 0.6)
    result = replay(folder)
    assert result.quality.as_dict() == {"damaged_file": 1}
    assert 150 < result.quality.samples < len(MESSAGES)
    assert "bag.mcap" in result.quality.notes[0]


def test_bytes_that_fit_no_definition_are_skipped(tmp_path):
    path = write1(tmp_path / "a.bag", MESSAGES)
    data = path.read_bytes()
    # The length of the names' list of one message becomes absurd.
    needle = b"\x04\x00\x00\x00\x02\x00\x00\x00j0"
    at = data.index(needle, len(data) // 2)
    path.write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    result = replay(path)
    assert result.quality.as_dict() == {"undecodable": 1}
    assert result.quality.samples == len(MESSAGES) - 1


def test_a_recording_of_nothing_usable_is_an_error_that_says_why(tmp_path):
    with pytest.raises(ReplayError, match="no joint names"):
        run(tmp_path, changed(MESSAGES, range(len(MESSAGES)), name=()))
    with pytest.raises(ReplayError, match="no joint 'elbow'"):
        run(tmp_path / "b", MESSAGES, joints=("elbow",))


def test_stamps_are_seconds_since_the_first_message(tmp_path):
    result = run(tmp_path, MESSAGES, remaps=parse_remaps(["joint_states:=/joint_states"]))
    assert result.start_ns == START_NS + 2_000_000
    assert result.samples["t_s"][-1] == pytest.approx(
        ((len(MESSAGES) - 1) * STEP_NS - 2_000_000) * 1e-9
    )
