"""The same recording gives the same decisions, whatever holds it and however it names things."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bags import (
    NAMES,
    START_NS,
    STEP_NS,
    STORE2,
    Extra,
    data_file,
    motion,
    write1,
    write2,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from ros_vla_accel.replay.command import main
from ros_vla_accel.replay.fields import FieldMapError, load_field_map
from ros_vla_accel.replay.pipeline import ReplayConfig, replay
from ros_vla_accel.replay.topics import TopicError, parse_remaps

MESSAGES = motion(6.0)


def decisions(bag, *arguments):
    """Runs the command; its status and the lines that it wrote."""
    out = Path(bag).parent / "decisions.jsonl"
    status = main([str(bag), "--out", str(out), *map(str, arguments)])
    return status, out.read_text() if out.exists() else ""


@pytest.fixture
def bag(tmp_path):
    return write2(tmp_path / "bag", MESSAGES)


def test_decisions_are_the_same_bytes_each_time_and_from_each_format(tmp_path, bag):
    status, text = decisions(bag)
    assert status == 0
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    # 6 s are 120 periods, less those in which the clocks are compared and the grid starts.
    assert kinds.count("period") == 115
    assert kinds.count("preempt") >= 2
    assert decisions(bag) == (0, text)
    assert decisions(write1(tmp_path / "a.bag", MESSAGES)) == (0, text)
    assert decisions(write2(tmp_path / "db3", MESSAGES, StoragePlugin.SQLITE3)) == (0, text)


def test_a_period_says_signals_scores_bits_route_and_reason(bag):
    line = json.loads(decisions(bag)[1].splitlines()[-1])
    assert set(line) >= {"stamp_ns", "fineness", "jerk", "sensitivity", "bits", "bits_reason"}
    assert set(line) >= {"importance", "route", "route_reason", "preempt_seq"}
    assert line["bits"] in (2, 4, 8, 16)


def test_what_was_expected_passes(tmp_path, bag):
    golden = tmp_path / "golden.jsonl"
    golden.write_text(decisions(bag)[1])
    assert main([str(bag), "--expect", str(golden)]) == 0


def test_the_first_difference_is_shown_in_context_and_fails(tmp_path, bag, capsys):
    lines = decisions(bag)[1].splitlines()
    before = json.loads(lines[50])
    lines[50] = json.dumps({**before, "bits": 99}, separators=(",", ":"))
    lines[70] = "{}"
    golden = tmp_path / "golden.jsonl"
    golden.write_text("\n".join(lines) + "\n")
    assert main([str(bag), "--expect", str(golden)]) == 1
    shown = capsys.readouterr().err
    assert f"golden.jsonl:51: bits: 99 -> {before['bits']}" in shown
    assert lines[49] in shown
    assert lines[47] in shown
    assert lines[46] not in shown


@pytest.mark.parametrize(("keep", "what"), [(-5, "goes on"), (None, "5 decisions too early")])
def test_a_run_of_another_length_differs(tmp_path, bag, capsys, keep, what):
    lines = decisions(bag)[1].splitlines()
    golden = tmp_path / "golden.jsonl"
    golden.write_text("\n".join(lines[:keep] if keep else lines + lines[-5:]) + "\n")
    assert main([str(bag), "--expect", str(golden)]) == 1
    assert what in capsys.readouterr().err


def test_floats_may_differ_by_the_tolerance_and_bits_may_not(tmp_path, bag):
    lines = [json.loads(line) for line in decisions(bag)[1].splitlines()]
    golden = tmp_path / "golden.jsonl"

    def expect(change, *arguments):
        golden.write_text("".join(json.dumps(change(dict(x))) + "\n" for x in lines))
        return main([str(bag), "--expect", str(golden), *arguments])

    def nudge(values):
        return {
            key: value * (1 + 1e-9) if isinstance(value, float) else value
            for key, value in values.items()
        }

    assert expect(nudge) == 1
    assert expect(nudge, "--tolerance", "1e-6") == 0
    assert expect(lambda x: {**x, "preempt_seq": 7}, "--tolerance", "1e-6") == 1


def test_the_summary_has_the_keys_that_others_read(tmp_path, bag):
    path = tmp_path / "summary.json"
    assert main([str(bag), "--json", str(path)]) == 0
    summary = json.loads(path.read_text())
    assert summary["messages"] == len(MESSAGES)
    assert summary["decisions"] > 100
    assert summary["quality"] == {}
    assert sum(summary["bits"].values()) == pytest.approx(1.0)
    assert sum(summary["route"].values()) == pytest.approx(1.0)


def test_topics_are_found_in_any_namespace_or_remapped(tmp_path):
    text = decisions(write2(tmp_path / "plain", MESSAGES))[1]
    assert decisions(write2(tmp_path / "ns", MESSAGES, topic="/vla/joint_states"))[1] == text
    other = Extra("/b/joint_states", "sensor_msgs/msg/JointState")
    both = write2(tmp_path / "both", MESSAGES, topic="/a/joint_states", extras=(other,))
    with pytest.raises(TopicError, match="--topics joint_states:="):
        replay(both)
    assert decisions(both, "--topics", "joint_states:=/a/joint_states")[1] == text
    with pytest.raises(TopicError, match=r"no topic '/c'; it has /a/joint_states"):
        replay(both, ReplayConfig(remaps=parse_remaps(["joint_states:=/c"])))


def test_joints_are_chosen_by_name(bag):
    result = replay(bag, ReplayConfig(joints=("j2", "j0")))
    assert result.joint_names == ("j2", "j0")
    assert result.samples["speed"].max() < replay(bag).samples["speed"].max()


def test_a_part_of_the_recording_is_replayed_alone(bag):
    result = replay(bag, ReplayConfig(start_s=2.0, duration_s=1.5))
    assert result.quality.samples == 150
    assert result.samples["t_s"][0] > 2.0
    assert result.samples["t_s"][-1] < 3.5


def custom_bag(folder, text, msgtype, make, embed=True):
    """A bag of MESSAGES as another message type."""
    store = STORE2
    if msgtype not in store.fielddefs:
        store.register(get_types_from_msg(text, msgtype))
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/arm/state", msgtype, typestore=store)
        for message in MESSAGES:
            data = store.serialize_cdr(make(store.types, message), msgtype)
            writer.write(connection, message.received_ns, data)
    if not embed:
        import sqlite3

        with sqlite3.connect(data_file(folder)) as database:
            database.execute("DELETE FROM message_definitions")
        database.close()
    return folder


DRIVE = "std_msgs/Header header\nmy_arm/Drive[] drives"
DRIVE_ONLY = "float64 angle\nfloat64 rate\nfloat64 load"


def drives(types, message):
    stamp = types["builtin_interfaces/msg/Time"](*divmod(message.header_ns, 1_000_000_000))
    return types["my_arm/msg/Arm"](
        types["std_msgs/msg/Header"](stamp=stamp, frame_id=""),
        [
            types["my_arm/msg/Drive"](*values)
            for values in zip(message.position, message.velocity, message.effort, strict=True)
        ],
    )


FIELDS = """
names: [j0, j1, j2, j3]
position: drives[*].angle
velocity: drives[*].rate
effort: ["drives[0].load", "drives[1].load", "drives[2].load", "drives[3].load"]
"""


@pytest.mark.parametrize("embed", [True, False])
def test_another_message_type_is_read_by_field_paths(tmp_path, bag, embed):
    if "my_arm/msg/Drive" not in STORE2.fielddefs:
        STORE2.register(get_types_from_msg(DRIVE_ONLY, "my_arm/msg/Drive"))
    folder = custom_bag(tmp_path / "arm", DRIVE, "my_arm/msg/Arm", drives, embed)
    (tmp_path / "fields.yaml").write_text(FIELDS)
    (tmp_path / "my_arm" / "msg").mkdir(parents=True)
    (tmp_path / "my_arm" / "msg" / "Arm.msg").write_text(DRIVE)
    (tmp_path / "my_arm" / "msg" / "Drive.msg").write_text(DRIVE_ONLY)
    arguments = ["--fields", tmp_path / "fields.yaml", "--topics", "joint_states:=/arm/state"]
    if not embed:
        assert decisions(folder, *arguments)[0] == 1
        arguments += ["--msgs", tmp_path / "my_arm"]
    assert decisions(folder, *arguments) == decisions(bag)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("place: x", "keys among"),
        ("position: '../x'", "no path"),
        ("velocity: x", None),
        ("[]", "expected a mapping"),
        ("position: ''", "every arm has positions"),
    ],
)
def test_a_wrong_field_mapping_is_an_error_that_names_it(tmp_path, text, match):
    path = tmp_path / "fields.yaml"
    path.write_text(text)
    if match is None:
        mapping = load_field_map(path)
        assert (mapping.position, mapping.velocity, mapping.effort) == ("position", "x", "")
        with pytest.raises(FieldMapError, match=r"no 'header\.stamp'"):
            mapping.reader()(SimpleNamespace())
        return
    with pytest.raises(FieldMapError, match=match):
        load_field_map(path)


def test_parameters_are_those_of_the_nodes(tmp_path, bag):
    params = tmp_path / "mine.yaml"
    params.write_text(
        "/**/quantization_controller:\n  ros__parameters: {mu95: 1e-1, theta_fp: 2}\n"
        "vla:\n  partition_manager:\n    ros__parameters: {route: edge, theta_compat: 1.0e9,\n"
        "      theta_redundancy: 1.0e9}\n"
    )
    status, text = decisions(bag, "--params", params)
    assert status == 0
    assert "preempt" not in {json.loads(line)["kind"] for line in text.splitlines()}
    assert json.loads(text.splitlines()[-1])["route"] == "edge"
    params.write_text("quantization_controller:\n  ros__parameters: {mu95: nought}\n")
    assert decisions(bag, "--params", params)[0] == 1


def test_a_robot_description_in_the_bag_measures_motion_by_forward_kinematics(tmp_path):
    pytest.importorskip("pinocchio")
    urdf = (
        "<robot name='a'><link name='base'/>"
        + "".join(
            f"<link name='l{i}'/><joint name='j{i}' type='revolute'><parent link='"
            f"{'base' if i == 0 else f'l{i - 1}'}'/><child link='l{i}'/><axis xyz='0 0 1'/>"
            "<origin xyz='0.3 0 0'/><limit lower='-9' upper='9' effort='1' velocity='9'/></joint>"
            for i in range(4)
        )
        + "</robot>"
    )
    description = STORE2.types["std_msgs/msg/String"](urdf)
    extra = Extra("/robot_description", "std_msgs/msg/String", [(START_NS - 1, description)])
    by_joints = replay(write2(tmp_path / "joint", MESSAGES))
    by_fk = replay(write2(tmp_path / "fk", MESSAGES, extras=(extra,)), ReplayConfig(joints=NAMES))
    assert (by_joints.source, by_fk.source) == ("joint", "fk")
    assert not np.array_equal(
        by_joints.decisions["fineness"], by_fk.decisions["fineness"], equal_nan=True
    )


def test_what_the_nodes_said_becomes_tables(tmp_path):
    types = STORE2.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](*divmod(START_NS + 10**9, 10**9)), frame_id=""
    )
    link = types["ros_vla_accel/msg/LinkStats"](
        header, 1, 0, "tcp://x", 12.5, 20.0, 90.0, 30.0, 5, 4, 1, 0, 100, 200, "vla", "", "cut"
    )
    chunk = types["ros_vla_accel/msg/ActionChunk"](
        header, 1, 7, 1, 0, 0, 0.05, np.zeros(0, np.float32), "edge", 8,
        ["total"], np.array([0.12], np.float32),
    )  # fmt: skip
    at_ns = START_NS + 3 * 10**9
    extras = (
        Extra("/vla/link_stats", "ros_vla_accel/msg/LinkStats", [(at_ns, link)]),
        Extra("/vla/action_chunk", "ros_vla_accel/msg/ActionChunk", [(at_ns, chunk)]),
    )
    folder = write2(tmp_path / "bag", MESSAGES, extras=extras)
    result = replay(folder)
    chunks = result.events["chunks"]
    assert chunks["t_s"] == pytest.approx([2.998])
    assert chunks["observed_s"] == pytest.approx([0.998])
    assert chunks["timing.total"] == pytest.approx([0.12])
    assert result.events["link"]["round_trip_ms"].tolist() == [12.5]
    # The link was down from then on.
    assert result.route["cloud"] == pytest.approx(0.5, abs=0.1)
    assert replay(folder, ReplayConfig(link="healthy")).route["cloud"] > 0.9


def test_images_are_sampled_evenly_for_a_strip(tmp_path):
    types = STORE2.types
    images = []
    for index in range(60):
        stamp_ns = START_NS + index * 10 * STEP_NS
        stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
        pixels = np.full(240 * 320 * 3, index, np.uint8)
        images.append(
            (
                stamp_ns,
                types["sensor_msgs/msg/Image"](
                    types["std_msgs/msg/Header"](stamp=stamp, frame_id=""),
                    240, 320, "rgb8", 0, 960, pixels,
                ),
            )
        )  # fmt: skip
    extra = Extra("/camera/front/image_raw", "sensor_msgs/msg/Image", images)
    folder = write2(tmp_path / "bag", MESSAGES, extras=(extra,))
    frames = replay(folder, ReplayConfig(frames=4)).frames
    assert [int(frame.image[0, 0, 0]) for frame in frames] == pytest.approx([7, 22, 37, 52], abs=1)
    assert frames[0].image.shape == (120, 160, 3)
    assert frames[1].t_s == pytest.approx(2.3, abs=0.1)
    assert replay(folder).frames == []
