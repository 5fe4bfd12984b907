"""What is recorded is complete, readable by others, and never at the expense of who listens."""

import threading
import time

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import LinkStats
from ros_vla_accel.nodes import recorder as recorder_module
from ros_vla_accel.nodes.base import STATE_QOS
from ros_vla_accel.nodes.convert import to_stamp
from ros_vla_accel.nodes.recorder import Recorder
from ros_vla_accel.nodes.recorder_node import RecorderNode
from ros_vla_accel.replay.bag import Bag
from ros_vla_accel.resources import existing_path

NAMES = list(load_robot(existing_path("metaworld_sawyer", "config/robots")).joint_names)


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "78")
    rclpy.init(args=[])
    node = Node("robot", namespace="/vla")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def wait(condition, timeout_s=8.0):
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


class Spinning:
    def __init__(self, *nodes):
        self._executor = SingleThreadedExecutor()
        for node in nodes:
            self._executor.add_node(node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self):
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def joint_state(index):
    msg = JointState(name=NAMES, position=[0.001 * index] * len(NAMES))
    msg.header.stamp = to_stamp(10**18 + index * 10_000_000)
    return msg


def test_the_node_records_the_stack_and_each_activation_anew(node, tmp_path):
    overrides = [Parameter("folder", value=str(tmp_path / "bags"))]
    recording = RecorderNode(namespace="/vla", parameter_overrides=overrides)
    joints = node.create_publisher(JointState, "joint_states", QoSProfile(depth=100))
    image = node.create_publisher(Image, "camera/corner2/image_raw", 10)
    link = node.create_publisher(LinkStats, "link_stats", 10)
    description = node.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data="<robot name='x'/>"))
    with Spinning(recording, node):
        try:
            for _ in range(2):
                assert recording.trigger_activate() if _ else recording.autostart()
                wait(lambda: min(p.get_subscription_count() for p in (joints, image, link)))
                time.sleep(0.3)  # The other side matches later, and says nothing of it.
                for index in range(50):
                    joints.publish(joint_state(index))
                    time.sleep(0.002)
                image.publish(Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12)))
                link.publish(LinkStats(endpoint="tcp://here"))
                wait(lambda: recording._recorder.written >= 53)
                assert recording._recorder.dropped == 0
                recording.trigger_deactivate()
        finally:
            recording.close()
    folders = sorted((tmp_path / "bags").iterdir())
    assert len(folders) == 2
    for folder in folders:
        with Bag(folder) as bag:
            assert bag.topics["/vla/camera/corner2/image_raw"] == "sensor_msgs/msg/Image"
            assert "/vla/partition_decision" in bag.topics
            assert "/vla/command/twist" in bag.topics
            read = [
                (channel.topic, bag.decode(channel, data))
                for channel, _, data in bag.messages(bag.topics)
            ]
        positions = [m.position[0] for topic, m in read if topic == "/vla/joint_states"]
        assert positions == pytest.approx([0.001 * index for index in range(50)])
        assert [m.endpoint for t, m in read if t == "/vla/link_stats"] == ["tcp://here"]
        assert "<robot name='x'/>" in [m.data for t, m in read if t == "/vla/robot_description"]


def test_the_bag_has_what_ros2_bag_and_foxglove_need(node, tmp_path):
    topics = [("joint_states", JointState, QoSProfile(depth=10)), ("note", String, STATE_QOS)]
    recorder = Recorder(node, tmp_path / "bag", topics)
    recorder.close()
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    assert information["version"] == 9
    assert information["storage_identifier"] == "mcap"
    described = {
        item["topic_metadata"]["name"]: item["topic_metadata"]
        for item in information["topics_with_message_count"]
    }
    joints = described["/vla/joint_states"]
    assert joints["type"] == "sensor_msgs/msg/JointState"
    assert joints["serialization_format"] == "cdr"
    assert joints["type_description_hash"].startswith("RIHS01_")
    (profile,) = described["/vla/note"]["offered_qos_profiles"]
    assert (profile["durability"], profile["reliability"]) == ("transient_local", "reliable")
    assert b"float64[] position" in (tmp_path / "bag" / "bag.mcap").read_bytes()


def test_an_existing_recording_is_never_overwritten(node, tmp_path):
    with pytest.raises(FileExistsError, match="name a new one"):
        Recorder(node, tmp_path, [])


class StuckWriter:
    """A disk that takes nothing until it is released, and then fails."""

    def __init__(self, writer):
        self._writer = writer
        self.released = threading.Event()

    def __getattr__(self, name):
        return getattr(self._writer, name)

    def write(self, *_):
        self.released.wait()
        raise OSError("no space left")


def test_a_stuck_or_full_disk_drops_and_counts_and_holds_nobody_up(node, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "WAITING_MESSAGES", 10)
    recorder = Recorder(node, tmp_path / "bag", [("note", String, QoSProfile(depth=10))])
    recorder._writer = stuck = StuckWriter(recorder._writer)
    take = recorder._taker(recorder._writer.connections[0])
    data = np.zeros(100, np.uint8).tobytes()
    began_s = time.monotonic()
    for _ in range(1000):
        take(data)
    assert time.monotonic() - began_s < 1.0
    assert 985 <= recorder.dropped <= 990
    stuck.released.set()
    wait(lambda: recorder.error)
    assert "no space left" in recorder.error
    recorder.close()
    assert recorder.dropped == 1000
    assert recorder.written == 0


def test_large_messages_are_bounded_by_their_bytes(node, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "WAITING_BYTES", 3_000_000)
    recorder = Recorder(node, tmp_path / "bag", [("note", String, QoSProfile(depth=10))])
    recorder._writer = stuck = StuckWriter(recorder._writer)
    take = recorder._taker(recorder._writer.connections[0])
    for _ in range(10):
        take(bytes(1_000_000))
    assert 6 <= recorder.dropped <= 7
    stuck.released.set()
    recorder.close()
