"""Nodes in different processes, and how a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.qos import QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

DOMAIN = 10
HERE = Path(__file__).resolve().parent


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts node processes and ends them after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: str) -> subprocess.Popen[str]:
        python_path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, str(HERE / "process_node.py"), *args],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONPATH": python_path},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_topics_parameters_and_services_cross_processes(
    ros: Any, start: Callable[..., Any]
) -> None:
    start("--ros-args", "-r", "__ns:=/far", "-p", "mark:=got-")
    node, received = ros.node(), []
    node.create_subscription(String, "/far/out", lambda m: received.append(m.data), 10)
    publisher = node.create_publisher(String, "/far/in", QoSProfile(depth=10))
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    assert ros.until(lambda: node.count_publishers("/far/out") == 1)

    def answered() -> bool:
        publisher.publish(String(data="it"))
        return bool(received)

    assert ros.until(answered)
    assert received[0] == "got-it"
    assert ros.call(Trigger, "/far/echo/ping", Trigger.Request()).message == "/far/echo"
    assert ros.until(lambda: ("echo", "/far") in node.get_node_names_and_namespaces())


@pytest.mark.parametrize(
    ("number", "ends"),
    [(signal.SIGINT, {"interrupt"}), (signal.SIGTERM, {"shutdown", "returned"})],
)
def test_a_signal_ends_a_process_at_once(
    start: Callable[..., Any], number: signal.Signals, ends: set[str]
) -> None:
    process = start()
    before = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert time.monotonic() - before < 2.0
    assert output.strip() in ends
    assert process.returncode == 0


def test_a_process_that_ends_leaves_the_graph_at_once(ros: Any, start: Callable[..., Any]) -> None:
    process = start()
    publisher = ros.node().create_publisher(String, "in", 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    process.send_signal(signal.SIGINT)
    assert ros.until(lambda: publisher.get_subscription_count() == 0, timeout_s=3)
