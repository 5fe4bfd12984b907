"""Topics: types, latching, depth, mismatched QoS, endpoints that come and go."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64, Header, String

from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceRequest,
    InferenceStats,
    LinkStats,
    PartitionDecision,
    PrecisionCommand,
    TensorDescriptor,
)

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="base")
PIXELS = array.array("B", bytes(range(12)))
MESSAGES: list[Any] = [
    String(data="open the drawer ✓"),
    Float64(data=-0.25),
    Clock(clock=Time(sec=3, nanosec=7)),
    JointState(header=HEADER, name=["j1", "j2"], position=[0.5, -1.0], velocity=[], effort=[1e9]),
    Image(header=HEADER, height=2, width=2, encoding="rgb8", step=6, data=PIXELS),
    CompressedImage(header=HEADER, format="jpeg", data=PIXELS),
    TwistStamped(header=HEADER),
    DiagnosticArray(
        header=HEADER,
        status=[
            DiagnosticStatus(
                level=DiagnosticStatus.WARN,
                name="executor",
                values=[KeyValue(key="ticks", value="4"), KeyValue(key="a", value="")],
            )
        ],
    ),
    ActionChunk(
        header=HEADER,
        schema_version=1,
        request_id=2**63,
        horizon=2,
        action_size=2,
        period_s=0.05,
        actions=[0.5, 0.25, -1.0, 2.0],
        source="edge",
        timing_names=["vision", "head"],
        timings_s=[0.5, 1.5],
    ),
    PrecisionCommand(header=HEADER, activation_bits=8, sensitivity=0.5, reason="rise"),
    PartitionDecision(
        header=HEADER, route=PartitionDecision.CLOUD, cut="vision", valid_until=Time(sec=9)
    ),
    InferenceRequest(
        header=HEADER,
        seed=2**40,
        cut="observation",
        previous_actions=[0.5],
        tensors=[
            TensorDescriptor(name="image/a", dtype="uint8", shape=[4, 3], encoding="raw", size=12),
            TensorDescriptor(name="state", dtype="float32", shape=[1], scale=[0.5], offset=12),
        ],
        data=PIXELS,
    ),
    InferenceStats(header=HEADER, inferences_edge=5, policy="a:b", status="ok"),
    ExecutorState(header=HEADER, state=ExecutorState.PLAYING, armed=True, command=[0.5, 0.25]),
    LinkStats(header=HEADER, health=LinkStats.HEALTHY, endpoint="tcp://127.0.0.1:5555"),
]


def same(sent: Any, received: Any) -> bool:
    """Whether two messages have equal fields, whatever containers hold their sequences."""
    fields = sent.get_fields_and_field_types()
    if fields != received.get_fields_and_field_types():
        return False
    for name in fields:
        a, b = getattr(sent, name), getattr(received, name)
        if hasattr(a, "get_fields_and_field_types"):
            equal = same(a, b)
        elif isinstance(a, str | bytes | float | int):
            equal = type(a) is type(b) and a == b
        else:
            equal = len(a) == len(b) and all(
                same(x, y) if hasattr(x, "get_fields_and_field_types") else x == y
                for x, y in zip(a, b, strict=True)
            )
        if not equal:
            return False
    return True


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_sent(ros: Any, message: Any) -> None:
    node, received = ros.node(), []
    node.create_subscription(type(message), "topic", received.append, 10)
    publisher = node.create_publisher(type(message), "topic", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(message)
    assert ros.until(lambda: received)
    assert same(message, received[0])


def test_image_data_is_readable_by_numpy(ros: Any) -> None:
    node, received = ros.node(), []
    node.create_subscription(Image, "image", received.append, qos_profile_sensor_data)
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    pixels = np.arange(480 * 640 * 3, dtype=np.uint32).astype(np.uint8).reshape(480, 640, 3)
    image = Image(height=480, width=640, encoding="rgb8", step=1920)
    image.data = array.array("B", pixels.tobytes())
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(image)
    assert ros.until(lambda: received)
    seen = np.frombuffer(received[0].data, dtype=np.uint8).reshape(480, 640, 3)
    assert np.array_equal(seen, pixels)


LATCHED = QoSProfile(depth=2, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_a_late_subscription_gets_the_newest_latched_messages(ros: Any) -> None:
    node, received = ros.node(), []
    publisher = node.create_publisher(String, "state", LATCHED)
    for text in ("a", "b", "c"):
        publisher.publish(String(data=text))
    node.create_subscription(String, "state", lambda m: received.append(m.data), LATCHED)
    assert ros.until(lambda: len(received) == 2)
    assert received == ["b", "c"]


def test_a_late_volatile_subscription_gets_nothing_old(ros: Any) -> None:
    node, received = ros.node(), []
    publisher = node.create_publisher(String, "state", LATCHED)
    publisher.publish(String(data="old"))
    node.create_subscription(String, "state", lambda m: received.append(m.data), 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="new"))
    assert ros.until(lambda: received)
    assert received == ["new"]


def test_a_slow_subscription_of_depth_one_gets_the_newest_message(ros: Any) -> None:
    node, received = ros.node(), []
    node.create_subscription(String, "topic", lambda m: received.append(m.data), 1)
    publisher = node.create_publisher(String, "topic", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    for index in range(5):
        publisher.publish(String(data=str(index)))
    assert ros.until(lambda: "4" in received)
    assert received == ["4"]


def test_keep_all_loses_nothing(ros: Any) -> None:
    node, received = ros.node(), []
    everything = QoSProfile(history=HistoryPolicy.KEEP_ALL)
    node.create_subscription(String, "topic", lambda m: received.append(int(m.data)), everything)
    publisher = node.create_publisher(String, "topic", everything)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    for index in range(200):
        publisher.publish(String(data=str(index)))
    assert ros.until(lambda: len(received) == 200)
    assert received == list(range(200))


def test_incompatible_reliability_is_told_to_both_sides(ros: Any) -> None:
    node, received, told = ros.node(), [], {}
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(
        String,
        "topic",
        received.append,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=SubscriptionEventCallbacks(
            incompatible_qos=lambda event: told.update(subscription=event.last_policy_kind)
        ),
    )
    publisher = node.create_publisher(
        String,
        "topic",
        best_effort,
        event_callbacks=PublisherEventCallbacks(
            incompatible_qos=lambda event: told.update(publisher=event.last_policy_kind)
        ),
    )
    assert ros.until(lambda: len(told) == 2)
    assert set(told.values()) == {QoSPolicyKind.RELIABILITY}
    publisher.publish(String(data="lost"))
    assert not ros.until(lambda: received, timeout_s=0.2)


def test_a_callback_may_take_the_message_info(ros: Any) -> None:
    node, received = ros.node(), []
    node.create_subscription(String, "topic", lambda m, info: received.append(info), 10)
    publisher = node.create_publisher(String, "topic", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    before = node.get_clock().now().nanoseconds
    publisher.publish(String())
    assert ros.until(lambda: received)
    assert 0 <= received[0]["source_timestamp"] - before < 5e9


def test_a_raw_subscription_gets_encoded_bytes(ros: Any) -> None:
    node, received = ros.node(), []
    node.create_subscription(String, "topic", received.append, 10, raw=True)
    publisher = node.create_publisher(String, "topic", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="ab"))
    assert ros.until(lambda: received)
    assert bytes(received[0])[:11] == b"\x00\x01\x00\x00\x03\x00\x00\x00ab\x00"


def test_destroyed_endpoints_leave_the_graph(ros: Any) -> None:
    node = ros.node()
    publisher = node.create_publisher(String, "topic", 10)
    subscription = node.create_subscription(String, "topic", lambda m: None, 10)
    assert ros.until(lambda: subscription.get_publisher_count() == 1)
    assert ros.until(lambda: node.count_publishers("topic") == 1)
    assert node.destroy_subscription(subscription)
    assert ros.until(lambda: publisher.get_subscription_count() == 0)
    assert node.destroy_publisher(publisher)
    assert not node.destroy_publisher(publisher)
    assert ros.until(lambda: node.count_publishers("topic") == 0)


def test_publishing_another_type_is_an_error(ros: Any) -> None:
    publisher = ros.node().create_publisher(String, "topic", 10)
    with pytest.raises(TypeError):
        publisher.publish(Float64())


def test_topics_and_types_are_listed(ros: Any) -> None:
    node = ros.node()
    node.create_publisher(JointState, "joint_states", 10)
    expected = ("/joint_states", ["sensor_msgs/msg/JointState"])
    assert ros.until(lambda: expected in node.get_topic_names_and_types())
