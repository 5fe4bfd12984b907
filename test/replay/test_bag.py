"""Any recording of the same messages gives the same messages back, as far as it goes."""

import contextlib
import shutil

import numpy as np
import pytest
import yaml
from bags import JOINT_STATE, START_NS, cut, data_file, motion, write1, write2
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from ros_vla_accel.replay.bag import Bag, BagError
from ros_vla_accel.replay.pipeline import replay

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3
MESSAGES = motion(3.0)


def read(path):
    """Receive stamps, first positions and damage."""
    with Bag(path) as bag:
        assert bag.topics == {"/joint_states": JOINT_STATE}
        rows = [
            (time_ns, float(bag.decode(channel, data).position[0]))
            for channel, time_ns, data in bag.messages(bag.topics)
        ]
        return rows, bag.damage


def stamped(messages):
    return [(m.received_ns, float(m.position[0])) for m in messages]


EXPECTED = stamped(MESSAGES)
LONG = motion(20.0)  # Compressed data is lost by the block, so there must be several.


@pytest.mark.parametrize("plugin", [MCAP, SQLITE])
@pytest.mark.parametrize(
    "compression", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE]
)
def test_a_ros_2_bag_is_read_with_or_without_its_metadata(tmp_path, plugin, compression):
    folder = write2(tmp_path / "bag", MESSAGES, plugin, compression)
    assert read(folder) == (EXPECTED, [])
    (folder / "metadata.yaml").unlink()
    assert read(folder) == (EXPECTED, [])


def test_chunk_compression_of_mcap_is_read(tmp_path):
    folder = write2(tmp_path / "bag", MESSAGES, MCAP, CompressionMode.STORAGE)
    assert read(folder) == (EXPECTED, [])


@pytest.mark.parametrize("plugin", [MCAP, SQLITE])
def test_a_single_file_is_read(tmp_path, plugin):
    assert read(data_file(write2(tmp_path / "bag", MESSAGES, plugin))) == (EXPECTED, [])


@pytest.mark.parametrize("compression", [None, *Writer1.CompressionFormat])
def test_a_ros_1_bag_is_read(tmp_path, compression):
    assert read(write1(tmp_path / "a.bag", MESSAGES, compression)) == (EXPECTED, [])


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("plugin", [MCAP, SQLITE])
def test_split_files_are_one_recording(tmp_path, plugin, with_metadata):
    first = write2(tmp_path / "split_0", MESSAGES[:100], plugin)
    second = write2(tmp_path / "split_1", MESSAGES[100:], plugin)
    shutil.copy(data_file(second), first)
    metadata = yaml.safe_load((first / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    information["relative_file_paths"].append(data_file(second).name)
    information["message_count"] = len(MESSAGES)
    information["duration"]["nanoseconds"] = len(MESSAGES) * 10_000_000
    (first / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    if not with_metadata:
        (first / "metadata.yaml").unlink()
    assert read(first) == (EXPECTED, [])


def test_split_ros_1_files_are_one_recording(tmp_path):
    write1(tmp_path / "b_0.bag", MESSAGES[:100])
    write1(tmp_path / "b_1.bag", MESSAGES[100:])
    assert read(tmp_path) == (EXPECTED, [])


@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.STORAGE])
def test_a_cut_mcap_is_read_up_to_the_damage(tmp_path, compression):
    file = cut(data_file(write2(tmp_path / "bag", LONG, MCAP, compression)), 0.8)
    check_cut(file)


def test_a_cut_sqlite_file_is_read_up_to_the_damage(tmp_path):
    check_cut(cut(data_file(write2(tmp_path / "bag", LONG, SQLITE)), 0.6))


@pytest.mark.parametrize("compression", [None, Writer1.CompressionFormat.LZ4])
def test_a_cut_ros_1_bag_is_read_up_to_the_damage(tmp_path, compression):
    check_cut(cut(write1(tmp_path / "a.bag", LONG, compression), 0.8))


def check_cut(file):
    rows, damage = read(file)
    assert 20 < len(rows) < len(LONG)
    assert rows == stamped(LONG)[: len(rows)]
    assert len(damage) == 1
    assert file.name in damage[0]


def test_a_damaged_file_of_a_split_recording_costs_only_its_own_end(tmp_path):
    first = write2(tmp_path / "split_0", MESSAGES[:100])
    second = write2(tmp_path / "split_1", MESSAGES[100:])
    cut(data_file(first), 0.5)
    shutil.copy(data_file(second), first)
    rows, damage = read(first)
    assert rows[-200:] == EXPECTED[-200:]
    assert 200 < len(rows) < 300
    assert len(damage) == 1


def test_bytes_changed_in_the_middle_end_the_reading_there(tmp_path):
    folder = write2(tmp_path / "bag", MESSAGES, MCAP, CompressionMode.STORAGE)
    file = data_file(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    file.write_bytes(bytes(data))
    _, damage = read(folder)
    assert len(damage) == 1


def test_a_part_of_the_time_is_read_alone(tmp_path):
    stop_ns = START_NS + 2_000_000_000
    for path in (write2(tmp_path / "bag", MESSAGES), write1(tmp_path / "a.bag", MESSAGES)):
        with Bag(path) as bag:
            times = [t for _, t, _ in bag.messages(bag.topics, START_NS + 1_000_000_000, stop_ns)]
            assert (bag.start_ns, bag.end_ns) == (EXPECTED[0][0], EXPECTED[-1][0])
        assert times == [row[0] for row in EXPECTED if START_NS + 1e9 <= row[0] < stop_ns]


def test_a_bag_without_definitions_uses_the_standard_ones(tmp_path):
    folder = write2(tmp_path / "bag", MESSAGES, SQLITE)
    import sqlite3

    with sqlite3.connect(data_file(folder)) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    assert read(folder) == (EXPECTED, [])


def test_what_is_no_recording_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        Bag(tmp_path / "nothing")
    with pytest.raises(BagError, match="holds no"):
        Bag(tmp_path)
    (tmp_path / "x.mcap").write_bytes(b"\x89MCAP1\r\nnonsense")
    with pytest.raises(BagError, match=r"x\.mcap"):
        Bag(tmp_path / "x.mcap")
    (tmp_path / "y.bag").write_bytes(b"#ROSBAG V1.2\n")
    with pytest.raises(BagError, match=r"version 2\.0"):
        Bag(tmp_path / "y.bag")


def test_bytes_changed_at_random_end_in_a_run_or_an_error_that_says_why(tmp_path):
    rng = np.random.default_rng(0)
    files = [
        data_file(write2(tmp_path / "a", MESSAGES)),
        data_file(write2(tmp_path / "b", MESSAGES, SQLITE)),
        write1(tmp_path / "c.bag", MESSAGES),
    ]
    for index in range(90):
        file = files[index % len(files)]
        data = np.frombuffer(file.read_bytes(), np.uint8).copy()
        at = rng.integers(0, len(data) - 64, rng.integers(1, 30))
        for start in at:
            data[start : start + 4] = rng.integers(0, 256, 4)
        broken = tmp_path / f"broken{file.suffix}"
        broken.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)].tobytes())
        with contextlib.suppress(ValueError):  # All of replay's errors are.
            replay(broken)
