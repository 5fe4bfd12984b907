"""Names: expansion, remapping of nodes, namespaces, topics, services, and what is not a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidTopicNameException,
)
from std_msgs.msg import String
from std_srvs.srv import Trigger


def test_names_are_expanded(ros: Any) -> None:
    node = ros.node("arm", namespace="/vla")
    assert node.get_fully_qualified_name() == "/vla/arm"
    assert node.resolve_topic_name("state") == "/vla/state"
    assert node.resolve_topic_name("camera/image") == "/vla/camera/image"
    assert node.resolve_topic_name("~/state") == "/vla/arm/state"
    assert node.resolve_topic_name("/state") == "/state"
    assert node.resolve_service_name("~/reset") == "/vla/arm/reset"
    assert node.create_publisher(String, "~/state", 1).topic_name == "/vla/arm/state"


def test_a_namespace_may_lack_its_slash(ros: Any) -> None:
    assert ros.node("arm", namespace="vla").get_namespace() == "/vla"


def test_node_and_namespace_are_remapped(make_ros: Callable[..., Any]) -> None:
    ros = make_ros("--ros-args", "-r", "__ns:=/vla", "-r", "__node:=renamed")
    node = ros.node("arm")
    assert (node.get_name(), node.get_namespace()) == ("renamed", "/vla")
    assert node.resolve_topic_name("~/state") == "/vla/renamed/state"


def test_topics_and_services_are_remapped(make_ros: Callable[..., Any]) -> None:
    ros = make_ros(
        "--ros-args", "-r", "joint_states:=/robot/joints", "-r", "/absolute:=relative",
        "-r", "~/out:=chosen", "-r", "reset:=restart",
    )  # fmt: skip
    node = ros.node("arm", namespace="/vla")
    assert node.resolve_topic_name("joint_states") == "/robot/joints"
    assert node.resolve_topic_name("/absolute") == "/vla/relative"
    assert node.resolve_topic_name("~/out") == "/vla/chosen"
    assert node.resolve_topic_name("other") == "/vla/other"
    assert node.resolve_topic_name("joint_states", only_expand=True) == "/vla/joint_states"
    assert node.create_service(Trigger, "reset", lambda q, r: r).service_name == "/vla/restart"


def test_a_rule_may_name_its_node(make_ros: Callable[..., Any]) -> None:
    ros = make_ros("--ros-args", "-r", "arm:image:=front", "-r", "eye:__node:=camera")
    assert ros.node("arm").resolve_topic_name("image") == "/front"
    assert ros.node("leg").resolve_topic_name("image") == "/image"
    assert ros.node("eye").get_name() == "camera"


def test_nodes_of_one_process_have_rules_of_their_own(ros: Any) -> None:
    left = ros.node(
        "arm", cli_args=["--ros-args", "-r", "__node:=left", "-r", "image:=left_image"]
    )
    right = ros.node("arm", cli_args=["--ros-args", "-r", "__node:=right", "-p", "side:=2"])
    assert (left.get_name(), right.get_name()) == ("left", "right")
    assert left.resolve_topic_name("image") == "/left_image"
    assert right.resolve_topic_name("image") == "/image"
    assert right.declare_parameter("side", 0).value == 2
    assert left.declare_parameter("side", 0).value == 0


def test_a_node_may_ignore_the_command_line(make_ros: Callable[..., Any]) -> None:
    ros = make_ros("--ros-args", "-r", "__ns:=/vla", "-p", "p:=2")
    node = ros.node("arm", use_global_arguments=False)
    assert node.get_namespace() == "/"
    assert node.declare_parameter("p", 1).value == 1


@pytest.mark.parametrize("name", ["", "1arm", "arm/left", "arm left"])
def test_a_wrong_node_name_is_an_error(ros: Any, name: str) -> None:
    with pytest.raises(InvalidNodeNameException):
        ros.node(name)


@pytest.mark.parametrize("namespace", ["/vla/", "/v la", "/1a"])
def test_a_wrong_namespace_is_an_error(ros: Any, namespace: str) -> None:
    with pytest.raises(InvalidNamespaceException):
        ros.node("arm", namespace=namespace)


@pytest.mark.parametrize("topic", ["", "a b", "a//b", "a/", "1a"])
def test_a_wrong_topic_name_is_an_error(ros: Any, topic: str) -> None:
    with pytest.raises(InvalidTopicNameException):
        ros.node().create_publisher(String, topic, 1)


def test_nodes_are_discovered(ros: Any) -> None:
    ros.node("first")
    second = ros.node("second", namespace="/vla")
    assert ros.until(
        lambda: {("first", "/"), ("second", "/vla")} <= set(second.get_node_names_and_namespaces())
    )
    ros.executor.remove_node(second)
    second.destroy_node()
    ros.nodes.remove(second)
    watcher = ros.node("watcher")
    assert ros.until(lambda: "second" not in watcher.get_node_names())
