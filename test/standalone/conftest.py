"""A context per test in a DDS domain of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from ros_vla_accel import middleware

DOMAIN = 11


# These tests are about standalone's inside; with ROS 2 sourced they have no subject.
collect_ignore_glob = [] if middleware.selected() == "standalone" else ["test_*.py"]


@pytest.fixture
def context() -> Iterator[rclpy.Context]:
    made = rclpy.Context()
    rclpy.init(args=[], context=made, domain_id=DOMAIN)
    yield made
    rclpy.try_shutdown(context=made)


@pytest.fixture
def executor(context: rclpy.Context) -> Iterator[SingleThreadedExecutor]:
    made = SingleThreadedExecutor(context=context)
    yield made
    made.shutdown()
