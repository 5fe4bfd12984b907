"""The suite says only what rclpy promises: it runs on standalone and on a sourced ROS 2 alike."""

# ruff: noqa: E402 (the middleware is chosen before rclpy is imported)

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

from ros_vla_accel import middleware

middleware.install()

import rclpy
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

DOMAIN = 10
TIMEOUT_S = 10.0


class Ros:
    """One context with its nodes and one executor."""

    def __init__(self, args: list[str] | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=args or [], context=self.context, domain_id=DOMAIN)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []

    def node(self, name: str = "node", kind: Callable[..., Any] = Node, **options: Any) -> Any:
        """A node that the executor spins."""
        node = kind(name, context=self.context, **options)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> bool:
        """Spins until the condition holds; False if it did not in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= end:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def result(self, future: Any) -> Any:
        """Spins until a future is done."""
        self.executor.spin_until_future_complete(future, TIMEOUT_S)
        assert future.done()
        return future.result()

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Calls a service of one of the nodes from a node of its own."""
        caller = self.node("caller")
        client = caller.create_client(kind, name)
        assert self.until(client.service_is_ready), f"no service {name}"
        response = self.result(client.call_async(request))
        self.executor.remove_node(caller)
        caller.destroy_node()
        self.nodes.remove(caller)
        return response

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def make_ros() -> Iterator[Callable[..., Ros]]:
    """Makes contexts with arguments of their own."""
    made: list[Ros] = []

    def make(*args: str) -> Ros:
        ros = Ros(list(args))
        made.append(ros)
        return ros

    yield make
    for ros in made:
        ros.close()


@pytest.fixture
def ros(make_ros: Callable[..., Ros]) -> Ros:
    return make_ros()


@pytest.fixture
def threads(ros: Ros) -> Iterator[MultiThreadedExecutor]:
    """An executor with four threads in the same context."""
    executor = MultiThreadedExecutor(num_threads=4, context=ros.context)
    yield executor
    executor.shutdown()
