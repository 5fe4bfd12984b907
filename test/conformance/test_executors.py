"""Executors, callback groups, tasks, futures, guard conditions, shutdown."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import (
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.task import Future
from std_msgs.msg import String


def spin_in_thread(executor: Any) -> threading.Thread:
    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    return thread


def most_at_once(
    ros: Any, executor: MultiThreadedExecutor, groups: list[Any], calls: int = 4
) -> int:
    """How many callbacks of timers in the given groups ran at the same time."""
    node = ros.node("busy")
    ros.executor.remove_node(node)
    lock, done = threading.Lock(), threading.Event()
    running, most, total = 0, 0, 0

    def work() -> None:
        nonlocal running, most, total
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
            total += 1
            if total >= calls:
                done.set()

    for group in groups:
        node.create_timer(0.01, work, callback_group=group)
    executor.add_node(node)
    thread = spin_in_thread(executor)
    assert done.wait(10)
    executor.shutdown()
    thread.join(5)
    return most


def test_callbacks_of_an_exclusive_group_take_turns(
    ros: Any, threads: MultiThreadedExecutor
) -> None:
    group = MutuallyExclusiveCallbackGroup()
    assert most_at_once(ros, threads, [group, group, group]) == 1


def test_callbacks_of_two_exclusive_groups_overlap(
    ros: Any, threads: MultiThreadedExecutor
) -> None:
    groups = [MutuallyExclusiveCallbackGroup() for _ in range(2)]
    assert most_at_once(ros, threads, groups) == 2


def test_callbacks_of_a_reentrant_group_overlap(ros: Any, threads: MultiThreadedExecutor) -> None:
    group = ReentrantCallbackGroup()
    assert most_at_once(ros, threads, [group, group]) >= 2


def test_a_long_callback_does_not_hold_up_another_group(
    ros: Any, threads: MultiThreadedExecutor
) -> None:
    node = ros.node()
    ros.executor.remove_node(node)
    release, received = threading.Event(), []
    slow, fast = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
    node.create_subscription(String, "slow", lambda m: release.wait(10), 10, callback_group=slow)
    node.create_subscription(String, "fast", received.append, 10, callback_group=fast)
    publishers = [node.create_publisher(String, topic, 10) for topic in ("slow", "fast")]
    threads.add_node(node)
    thread = spin_in_thread(threads)
    end = time.monotonic() + 5
    while any(p.get_subscription_count() == 0 for p in publishers) and time.monotonic() < end:
        time.sleep(0.01)
    publishers[0].publish(String())
    publishers[0].publish(String())
    for _ in range(5):
        publishers[1].publish(String())
    while len(received) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    count = len(received)
    release.set()
    threads.shutdown()
    thread.join(5)
    assert count == 5


def test_an_exception_in_a_callback_reaches_who_spins(ros: Any) -> None:
    def fail() -> None:
        raise ValueError("from a callback")

    ros.node().create_timer(0.01, fail)
    with pytest.raises(ValueError, match="from a callback"):
        ros.until(lambda: False, timeout_s=2)


def test_an_exception_on_another_thread_reaches_who_spins(
    ros: Any, threads: MultiThreadedExecutor
) -> None:
    def fail() -> None:
        raise ValueError("from a callback")

    node = ros.node()
    ros.executor.remove_node(node)
    node.create_timer(0.01, fail)
    threads.add_node(node)
    with pytest.raises(ValueError, match="from a callback"):
        threads.spin()


def test_spin_once_returns_after_its_timeout(ros: Any) -> None:
    ros.node()
    while True:  # What nodes do at start (parameter events) comes first.
        before = time.monotonic()
        ros.executor.spin_once(timeout_sec=0.1)
        if time.monotonic() - before > 0.09:
            break
    assert time.monotonic() - before < 1.0


def test_a_waiting_executor_notices_a_new_subscription(ros: Any) -> None:
    node, received = ros.node(), threading.Event()
    thread = spin_in_thread(ros.executor)
    node.create_subscription(String, "topic", lambda m: received.set(), 10)
    publisher = node.create_publisher(String, "topic", 10)
    end = time.monotonic() + 5
    while publisher.get_subscription_count() == 0 and time.monotonic() < end:
        time.sleep(0.01)
    publisher.publish(String())
    assert received.wait(5)
    ros.context.try_shutdown()
    thread.join(5)
    assert not thread.is_alive()


def test_shutdown_wakes_a_waiting_executor(ros: Any) -> None:
    ros.node()
    thread = spin_in_thread(ros.executor)
    ros.context.try_shutdown()
    thread.join(5)
    assert not thread.is_alive()
    assert not ros.context.ok()


def test_a_node_moves_to_the_executor_that_takes_it(ros: Any) -> None:
    node, calls = ros.node(), []
    node.create_timer(0.01, lambda: calls.append(0))
    other = SingleThreadedExecutor(context=ros.context)
    other.add_node(node)
    assert node.executor is other
    assert node not in ros.executor.get_nodes()
    assert not ros.until(lambda: calls, timeout_s=0.05)
    end = time.monotonic() + 5
    while not calls and time.monotonic() < end:
        other.spin_once(timeout_sec=0.1)
    other.shutdown()
    assert calls


def test_tasks_run_on_the_executor(ros: Any) -> None:
    ros.node()
    task = ros.executor.create_task(lambda a, b: a + b, 2, b=3)
    assert ros.result(task) == 5


def test_a_coroutine_awaits_a_future(ros: Any) -> None:
    node, gate = ros.node(), Future()

    async def wait_for_gate() -> str:
        return "got " + await gate

    task = ros.executor.create_task(wait_for_gate)
    node.create_timer(0.02, lambda: gate.done() or gate.set_result("it"))
    assert ros.result(task) == "got it"


def test_an_async_callback_runs_to_its_end(ros: Any) -> None:
    node, gate, ended = ros.node(), Future(), []

    async def callback() -> None:
        timer.cancel()
        ended.append(await gate)

    timer = node.create_timer(0.01, callback, callback_group=ReentrantCallbackGroup())
    node.create_timer(0.03, lambda: gate.done() or gate.set_result(1))
    assert ros.until(lambda: ended)
    assert ended == [1]


def test_an_exception_in_a_task_is_raised_and_kept(ros: Any) -> None:
    async def fail() -> None:
        raise KeyError("x")

    task = ros.executor.create_task(fail)
    with pytest.raises(KeyError):
        ros.executor.spin_until_future_complete(task, 5)
    assert isinstance(task.exception(), KeyError)


def test_a_future_can_be_canceled() -> None:
    future, told = Future(), []
    future.add_done_callback(told.append)
    future.cancel()
    assert future.cancelled()
    assert told == [future]


def test_a_guard_condition_runs_its_callback(ros: Any) -> None:
    called = threading.Event()
    guard = ros.node().create_guard_condition(called.set)
    threading.Timer(0.05, guard.trigger).start()
    assert ros.until(called.is_set)


def test_a_node_before_init_is_an_error() -> None:
    with pytest.raises(Exception, match="init"):
        rclpy.node.Node("early", context=rclpy.Context())


def test_shutdown_callbacks_are_called_once(ros: Any) -> None:
    calls: list[int] = []
    ros.context.on_shutdown(lambda: calls.append(0))
    ros.context.try_shutdown()
    ros.context.try_shutdown()
    assert calls == [0]
