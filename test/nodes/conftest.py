"""Nodes under test run in this process, over real DDS, with a probe on the other end."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

DOMAIN = 100 + os.getpid() % 100  # Two test runs beside each other must not talk.

sys.path.insert(0, str(Path(__file__).parent))  # arm_policy, as a user's module would be found


class Bench:
    """Spins nodes in a thread; ``probe`` publishes to them and keeps what they say."""

    def __init__(self) -> None:
        self._executor = SingleThreadedExecutor()
        self._nodes: list[Any] = []
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self._news = threading.Condition()
        self._stop = threading.Event()
        self.probe = self.add(Node("probe", namespace="/vla"))
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set() and rclpy.ok():
            self._executor.spin_once(timeout_sec=0.05)

    def add(self, node: Any) -> Any:
        self._executor.add_node(node)
        self._nodes.append(node)
        return node

    def start(self, kind: type, **parameters: Any) -> Any:
        """A node of ours, configured and active, with the shipped robot unless told otherwise."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = self.add(kind(namespace="/vla", parameter_overrides=overrides))
        assert node.autostart()
        return node

    def listen(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        def keep(msg: Any) -> None:
            with self._news:
                self.heard[topic].append(msg)
                self._news.notify_all()

        self.probe.create_subscription(kind, topic, keep, qos)
        return self.heard[topic]

    def until(self, condition: Callable[[], Any], timeout_s: float = 8.0) -> Any:
        """Waits for what the probe hears to fulfil a condition; fails the test if it does not."""
        with self._news:
            result = self._news.wait_for(condition, timeout_s)
        assert result, f"not within {timeout_s} s; heard {dict(self._last())}"
        return result

    def _last(self) -> list[tuple[str, Any]]:
        return [(topic, messages[-1:]) for topic, messages in self.heard.items()]

    def every(self, period_s: float, publish: Callable[[], None]) -> None:
        """Calls ``publish`` regularly until the test ends, like a driver would."""

        def run() -> None:
            while not self._stop.wait(period_s) and rclpy.ok():
                publish()

        threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for node in reversed(self._nodes):
            (node.close if hasattr(node, "close") else node.destroy_node)()


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    rclpy.init(args=[])
    bench = Bench()
    yield bench
    bench.close()
    rclpy.try_shutdown()
