"""Services and clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_srvs.srv import Empty, SetBool, Trigger


def answer(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
    response.success = request.data
    response.message = "on" if request.data else "off"
    return response


def test_a_client_gets_the_answer(ros: Any) -> None:
    ros.node("server").create_service(SetBool, "switch", answer)
    response = ros.call(SetBool, "switch", SetBool.Request(data=True))
    assert (response.success, response.message) == (True, "on")


def test_a_service_without_fields_answers(ros: Any) -> None:
    calls: list[Any] = []
    ros.node("server").create_service(Empty, "reset", lambda q, r: calls.append(q) or r)
    assert isinstance(ros.call(Empty, "reset", Empty.Request()), Empty.Response)
    assert len(calls) == 1


def test_each_client_gets_its_own_answers(ros: Any) -> None:
    ros.node("server").create_service(SetBool, "switch", answer)
    caller = ros.node("caller")
    clients = [caller.create_client(SetBool, "switch") for _ in range(2)]
    assert ros.until(lambda: all(client.service_is_ready() for client in clients))
    futures = [
        client.call_async(SetBool.Request(data=bool(index)))
        for _ in range(5)
        for index, client in enumerate(clients)
    ]
    assert ros.until(lambda: all(future.done() for future in futures))
    assert [future.result().success for future in futures] == [False, True] * 5


def test_waiting_for_a_service_takes_no_longer_than_allowed(ros: Any) -> None:
    client = ros.node().create_client(Trigger, "nobody")
    assert not client.wait_for_service(timeout_sec=0.1)
    assert not client.service_is_ready()


def test_waiting_for_a_service_ends_when_it_appears(ros: Any) -> None:
    client = ros.node("caller").create_client(Trigger, "late")
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(client.wait_for_service(10.0)))
    thread.start()
    ros.node("server").create_service(Trigger, "late", lambda q, r: r)
    thread.join(10)
    assert seen == [True]


def test_a_destroyed_service_is_gone(ros: Any) -> None:
    server = ros.node("server")
    service = server.create_service(Trigger, "reset", lambda q, r: r)
    client = ros.node("caller").create_client(Trigger, "reset")
    assert ros.until(client.service_is_ready)
    assert server.destroy_service(service)
    assert ros.until(lambda: not client.service_is_ready())


def test_a_done_callback_gets_the_future(ros: Any) -> None:
    ros.node("server").create_service(Trigger, "reset", lambda q, r: r)
    client, done = ros.node("caller").create_client(Trigger, "reset"), []
    assert ros.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    future.add_done_callback(done.append)
    assert ros.until(lambda: done)
    assert done == [future]


def test_an_async_service_may_await_another(ros: Any) -> None:
    node = ros.node("server")
    group = ReentrantCallbackGroup()
    node.create_service(SetBool, "inner", answer)
    inner = node.create_client(SetBool, "inner", callback_group=group)
    assert ros.until(inner.service_is_ready)

    async def outer(request: Any, response: Any) -> Any:
        found = await inner.call_async(SetBool.Request(data=True))
        response.success, response.message = found.success, "outer " + found.message
        return response

    node.create_service(Trigger, "outer", outer, callback_group=group)
    assert ros.call(Trigger, "outer", Trigger.Request()).message == "outer on"


def test_a_callback_may_call_and_wait_on_another_thread(
    ros: Any, threads: MultiThreadedExecutor
) -> None:
    node = ros.node("server")
    node.create_service(SetBool, "inner", answer, callback_group=ReentrantCallbackGroup())
    inner = node.create_client(SetBool, "inner", callback_group=ReentrantCallbackGroup())
    assert inner.wait_for_service(5.0)
    results, timer_done = [], threading.Event()

    def call() -> None:
        timer.cancel()
        results.append(inner.call(SetBool.Request(data=True)).message)
        timer_done.set()

    timer = node.create_timer(0.01, call)
    ros.executor.remove_node(node)
    threads.add_node(node)
    thread = threading.Thread(target=threads.spin, daemon=True)
    thread.start()
    assert timer_done.wait(5)
    threads.shutdown()
    thread.join(5)
    assert results == ["on"]


def test_a_request_of_another_type_is_an_error(ros: Any) -> None:
    client = ros.node().create_client(Trigger, "reset")
    with pytest.raises(TypeError):
        client.call_async(SetBool.Request())
