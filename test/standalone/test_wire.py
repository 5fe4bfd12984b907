"""What a real ROS 2 machine would see on the DDS wire, and what bad samples do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import rclpy
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ros_vla_accel.standalone.dds import library
from ros_vla_accel.standalone.dds.config import configuration, discovery_range, domain_id
from ros_vla_accel.standalone.dds.graph import GID_BYTES_VARIABLE, INFO, wire_name
from ros_vla_accel.standalone.dds.types import message_type
from ros_vla_accel.standalone.interfaces.definitions import definition
from ros_vla_accel.standalone.interfaces.type_hash import type_hash

DOMAIN = 11


def until(condition: Callable[[], Any], executor: Any = None) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        if executor is None:
            time.sleep(0.01)
        else:
            executor.spin_once(timeout_sec=0.02)
    return bool(condition())


@pytest.fixture
def outsider(context: rclpy.Context) -> DomainParticipant:
    """A DDS participant that knows nothing of ROS (made after the context set up the domain)."""
    assert context.graph
    return DomainParticipant(DOMAIN)


def publications(outsider: DomainParticipant) -> dict[str, Any]:
    reader = BuiltinDataReader(outsider, BuiltinTopicDcpsPublication)
    return {endpoint.topic_name: endpoint for endpoint in reader.read(1000)}


def test_names_types_and_hashes_follow_ros_conventions(
    context: rclpy.Context, outsider: DomainParticipant
) -> None:
    node = Node("arm", context=context, namespace="/vla")
    node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    node.create_service(Trigger, "~/reset", lambda q, r: r)
    found: dict[str, Any] = {}
    expected = {"rt/vla/joint_states", "rr/vla/arm/resetReply", "ros_discovery_info", "rt/rosout"}
    assert until(lambda: found.update(publications(outsider)) or expected <= set(found))
    joints = found["rt/vla/joint_states"]
    assert joints.type_name == "sensor_msgs::msg::dds_::JointState_"
    data = library.user_data(joints.qos)
    assert data["typehash"] == type_hash("sensor_msgs/msg/JointState")
    reply = found["rr/vla/arm/resetReply"]
    assert reply.type_name == "std_srvs::srv::dds_::Trigger_Response_"
    assert len(library.user_data(reply.qos)["serviceid"].split(".")) == 16
    node.destroy_node()


def test_a_sample_of_another_type_is_dropped_with_an_error(
    context: rclpy.Context,
    outsider: DomainParticipant,
    executor: SingleThreadedExecutor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node, received = Node("arm", context=context), []
    executor.add_node(node)
    node.create_subscription(String, "topic", lambda m: received.append(m.data), 10)
    writer = DataWriter(outsider, Topic(outsider, "rt/topic", message_type("std_msgs/msg/String")))
    assert until(lambda: node.count_publishers("topic") == 1)
    assert until(lambda: len(writer.get_matched_subscriptions()) == 1)
    bad = bytearray(b"\x00\x01\x00\x00\x03\x00\x00\x00\xff\xfe\x00\x00")
    good = bytearray(b"\x00\x01\x00\x00\x03\x00\x00\x00ok\x00\x00")
    assert library.write(writer._ref, bad) == 0
    assert library.write(writer._ref, good) == 0
    assert until(lambda: received, executor)
    assert received == ["ok"]
    assert "dropped a message on '/topic'" in capsys.readouterr().err
    node.destroy_node()


def test_the_default_warning_names_topic_and_policy(
    context: rclpy.Context, executor: SingleThreadedExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node("arm", context=context)
    executor.add_node(node)
    node.create_publisher(String, "topic", qos_profile_sensor_data)
    node.create_subscription(String, "topic", lambda m: None, QoSProfile(depth=1))
    seen = ""

    def warned() -> bool:
        nonlocal seen
        seen += capsys.readouterr().err
        return seen.count("Last incompatible policy: RELIABILITY") == 2

    assert until(warned, executor)
    assert "'/topic'" in seen
    node.destroy_node()


def test_humble_sees_longer_gids() -> None:
    name = wire_name({GID_BYTES_VARIABLE: "24"})
    info = definition(name)
    assert info.dds_name == definition(INFO).dds_name
    assert definition(info.fields[0].base).fields[0].size == 24
    assert wire_name({"ROS_DISTRO": "humble"}) == name
    assert wire_name({}) == INFO
    with pytest.raises(ValueError, match="20"):
        wire_name({GID_BYTES_VARIABLE: "20"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "LOCALHOST"),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "LOCALHOST"),
        ({"ROS_LOCALHOST_ONLY": "0"}, "SUBNET"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "subnet"}, "SUBNET"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "OFF"),
    ],
)
def test_discovery_stays_on_this_machine_unless_told(
    environment: dict[str, str], expected: str
) -> None:
    assert discovery_range(environment) == expected
    assert ("127.0.0.1" in configuration(environment)) == (expected == "LOCALHOST")


def test_wrong_environment_variables_are_named() -> None:
    with pytest.raises(ValueError, match="ROS_DOMAIN_ID is '300'"):
        domain_id({"ROS_DOMAIN_ID": "300"})
    with pytest.raises(ValueError, match="EVERYWHERE"):
        discovery_range({"ROS_AUTOMATIC_DISCOVERY_RANGE": "EVERYWHERE"})


def test_the_users_cyclonedds_settings_come_last() -> None:
    text = configuration({"CYCLONEDDS_URI": "file:///mine.xml"})
    assert text.endswith(",file:///mine.xml")
    assert "NetworkInterface" not in text


def test_static_peers_are_passed_on() -> None:
    text = configuration({"ROS_STATIC_PEERS": "192.168.0.7;robot.local"})
    assert '<Peer address="192.168.0.7"/><Peer address="robot.local"/>' in text
