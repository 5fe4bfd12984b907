"""Beside what rclpy promises: missing parts, arguments, log lines, waiting without work."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.node import Node
from std_msgs.msg import String

from ros_vla_accel.standalone.rclpy.arguments import RosArgumentError, parse
from ros_vla_accel.standalone.rclpy.names import section_matches


def test_a_missing_module_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"rclpy\.action"):
        import rclpy.action  # noqa: F401


def test_a_missing_method_is_named(context: rclpy.Context) -> None:
    with Node("arm", context=context) as node:
        with pytest.raises(NotImplementedError, match="get_publishers_info_by_topic"):
            node.get_publishers_info_by_topic("a")
        with pytest.raises(NotImplementedError, match="qos_overriding_options"):
            node.create_publisher(String, "a", 1, qos_overriding_options=object())
        assert not hasattr(node, "waitables")


def test_attributes_of_a_node_class_do_not_clash_with_ours(context: rclpy.Context) -> None:
    class Mine(Node):
        def __init__(self) -> None:
            super().__init__("mine", context=context)
            self._entities = self._lock = self._core = self._graph = self._executor = None
            self._name = self._participant = self._handle = self._queue = None
            self.create_publisher(String, "a", 1)
            self.create_timer(1.0, lambda: None)

    Mine().destroy_node()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-p"], "'-p' needs a value"),
        (["-p", "name"], "name:=value"),
        (["-r", "a:="], "empty name"),
        (["--unknown"], "--unknown"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--log-level", "loud"], "loud"),
        (["-p", "a:={"], "a:="),
    ],
)
def test_a_wrong_argument_is_named(words: list[str], problem: str) -> None:
    with pytest.raises(RosArgumentError, match=problem):
        parse(["--ros-args", *words])


def test_arguments_end_at_a_double_dash() -> None:
    parsed = parse(["prog", "-p", "--ros-args", "-p", "a:=1", "--", "-p", "b:=2"])
    assert [override.values for override in parsed.overrides] == [{"a": 1}]
    assert rclpy.utilities.remove_ros_args(["x", "--ros-args", "-p", "a:=1", "--", "y"]) == [
        "x",
        "y",
    ]


@pytest.mark.parametrize(
    ("section", "node", "matches"),
    [
        ("/**", "/vla/arm", True),
        ("arm", "/arm", True),
        ("arm", "/vla/arm", False),
        ("/vla/arm", "/vla/arm", True),
        ("/*/arm", "/vla/arm", True),
        ("/*/arm", "/a/b/arm", False),
        ("/**/arm", "/a/b/arm", True),
        ("/**/arm", "/arm", True),
        ("/vla/*", "/vla/arm", True),
        ("/vla/*", "/vlan/arm", False),
    ],
)
def test_sections_of_a_parameter_file_match_nodes(section: str, node: str, matches: bool) -> None:
    assert section_matches(section, node) == matches


def test_a_line_of_the_log_looks_like_ros(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("arm").warning("too hot")
    line = capsys.readouterr().err
    assert line.startswith("[WARN] [")
    assert line.endswith("] [arm]: too hot\n")


def test_levels_hold_back_and_pass_to_children(capsys: pytest.CaptureFixture[str]) -> None:
    logger = get_logger("quiet")
    logger.set_level(LoggingSeverity.ERROR)
    assert not logger.get_child("part").info("no")
    assert logger.get_child("part").error("yes")
    assert "no" not in capsys.readouterr().err


def test_throttled_and_single_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logger = get_logger("throttled")
    for _ in range(3):
        logger.info("often", throttle_duration_sec=60.0)
        logger.info("once", once=True)
        logger.info("later", skip_first=True)
    text = capsys.readouterr().err
    assert [text.count(word) for word in ("often", "once", "later")] == [1, 1, 2]


def test_waiting_takes_no_processor_time(context: rclpy.Context) -> None:
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(Node("idle", context=context))
    ended = threading.Event()

    def spin() -> None:
        with pytest.raises(ExternalShutdownException):
            executor.spin_once(timeout_sec=None) or executor.spin()
        ended.set()

    while True:  # what a new node still has to do
        before = time.monotonic()
        executor.spin_once(timeout_sec=0.2)
        if time.monotonic() - before > 0.19:
            break
    threading.Thread(target=spin).start()
    before = time.process_time()
    time.sleep(0.5)
    used = time.process_time() - before
    context.try_shutdown()
    assert ended.wait(5)
    assert used < 0.05
