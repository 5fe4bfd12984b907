"""The client against a worker in the same process, and against sockets that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import zmq
from cloud_test_policy import HASH, MixingPolicy, request
from cloud_test_support import healthy, submit, wait_until

from ros_vla_accel.cloud import wire
from ros_vla_accel.cloud.codec import encode_chunk, encode_observation, request_header
from ros_vla_accel.cloud.messages import (
    Hello,
    Ping,
    Pong,
    ReplyHeader,
    RequestHeader,
    Welcome,
)
from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.partition.link import LinkState


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_a_chunk_from_the_cloud_is_the_edges_chunk(
    encoding: str, make_worker, make_client, inbox
) -> None:
    client = make_client(make_worker().endpoint)
    assert healthy(client)
    assert submit(client, 4, encoding=encoding)
    (chunk,) = inbox.wait()
    expected = MixingPolicy().infer([request(4)])[0]
    tolerance = 0.02 if encoding == "jpeg" else 0.0
    np.testing.assert_allclose(chunk.actions, expected.actions, atol=tolerance, rtol=0)
    assert (chunk.source, chunk.request_id, chunk.episode_id) == ("cloud", 4, 3)
    assert (chunk.stamp_ns, chunk.activation_bits) == (expected.stamp_ns, 8)
    assert {"queue", "decode", "inference", "head", "round_trip"} == set(chunk.timings_s)


def test_stats_count_what_happened(make_worker, make_client, inbox) -> None:
    client = make_client(make_worker().endpoint)
    assert healthy(client)
    submit(client)
    inbox.wait()
    assert wait_until(lambda: client.stats().round_trip_p95_ms > 0)
    stats = client.stats()
    assert (stats.requests, stats.replies, stats.expired, stats.rejected) == (1, 1, 0, 0)
    assert stats.bytes_sent > 64 * 64 * 3
    assert stats.bytes_received > 16 * 4 * 4
    assert 0 < stats.round_trip_ms < 500
    assert stats.bandwidth_mbps > 0
    assert stats.worker_p50_ms > 0
    assert (stats.reason, stats.worker) == ("", "mixing")


def test_without_a_worker_submit_says_no_at_once(make_client) -> None:
    client = make_client("tcp://127.0.0.1:1")
    start = time.monotonic()
    assert not submit(client)
    assert time.monotonic() - start < 0.1
    assert client.stats().reason == "not connected yet"


def test_submit_never_waits_for_a_slow_worker(make_worker, make_client) -> None:
    gate = threading.Event()
    client = make_client(make_worker(MixingPolicy(gate=gate)).endpoint)
    assert healthy(client)
    asked = request()
    tensors, data = encode_observation(asked.observation)  # type: ignore[arg-type]
    header = request_header(asked, tensors, HASH)
    slowest = 0.0
    for request_id in range(50):
        start = time.monotonic()
        client.submit(replace(header, request_id=request_id), data, 5.0)
        slowest = max(slowest, time.monotonic() - start)
    gate.set()
    assert slowest < 0.1


def test_the_newest_request_wins_and_older_replies_are_dropped(
    make_worker, make_client, inbox
) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    client = make_client(make_worker(policy).endpoint)
    assert healthy(client)
    submit(client, 1)
    assert policy.started.acquire(timeout=5)
    submit(client, 2)
    assert wait_until(lambda: client.stats().superseded == 1)
    gate.set()
    (chunk,) = inbox.wait()
    assert chunk.request_id == 2
    stats = client.stats()
    assert (stats.requests, stats.replies, stats.superseded, stats.dropped) == (2, 1, 1, 1)


def test_a_late_reply_is_dropped_and_counted(make_worker, make_client, inbox) -> None:
    gate = threading.Event()
    client = make_client(make_worker(MixingPolicy(gate=gate)).endpoint)
    assert healthy(client)
    submit(client, 1, timeout_s=0.05)
    assert wait_until(lambda: client.stats().expired == 1)
    assert client.stats().dropped == 0
    gate.set()
    assert wait_until(lambda: client.stats().dropped == 1)
    assert inbox.chunks == []
    assert client.stats().replies == 0


def test_a_worker_too_slow_for_the_deadlines_becomes_suspect_and_is_asked_again_later(
    make_worker, make_client, inbox
) -> None:
    gate = threading.Event()
    client = make_client(make_worker(MixingPolicy(gate=gate)).endpoint)
    assert healthy(client)
    for request_id in (1, 2, 3):
        submit(client, request_id, timeout_s=0.02)
        assert wait_until(lambda n=request_id: client.stats().expired == n)
    assert client.health is LinkState.SUSPECT
    assert "3 requests in a row without a chunk" in client.stats().reason
    gate.set()
    assert healthy(client)
    submit(client, 4)
    inbox.wait()


def test_a_worker_with_another_policy_is_not_healthy_and_the_reason_is_given(
    make_worker, make_client
) -> None:
    client = make_client(make_worker().endpoint, "beef" * 16)
    assert wait_until(lambda: client.stats().rejected > 0)
    assert client.health < LinkState.SUSPECT
    assert "'f00dcafef00d', this robot needs 'beefbeefbeef'" in client.stats().reason
    assert not submit(client)


def test_without_a_hash_of_its_own_the_worker_still_refuses_foreign_requests(
    make_worker, make_client
) -> None:
    client = make_client(make_worker(MixingPolicy(checkpoint_hash="beef" * 16)).endpoint, "")
    assert healthy(client)
    submit(client)
    assert wait_until(lambda: client.stats().rejected == 1)
    assert "asks for 'f00dcafef00d'" in client.stats().reason
    assert client.health is LinkState.SUSPECT, "a foreign worker must not attract each request"


def test_a_policys_error_is_the_reason_and_the_link_lives_on(make_worker, make_client) -> None:
    client = make_client(make_worker(MixingPolicy(fail="no such instruction")).endpoint)
    assert healthy(client)
    submit(client)
    assert wait_until(lambda: client.stats().rejected == 1)
    assert client.stats().reason == "RuntimeError: no such instruction"
    assert client.health is LinkState.HEALTHY


def test_a_request_that_the_wire_cannot_carry_is_rejected_here(make_worker, make_client) -> None:
    client = make_client(make_worker().endpoint)
    assert healthy(client)
    tensors, data = encode_observation(request().observation)  # type: ignore[arg-type]
    header = request_header(request(), tensors, HASH)
    client.submit(header, data, timeout_s=1e9)
    assert wait_until(lambda: client.stats().rejected == 1)
    assert "remaining_s" in client.stats().reason


def test_an_exception_in_on_reply_does_not_end_the_client(make_worker, make_client) -> None:
    seen: list[int] = []
    arrived = threading.Semaphore(0)

    def fail(chunk: ActionChunk) -> None:
        seen.append(chunk.request_id)
        arrived.release()
        raise RuntimeError("the robot's own fault")

    client = make_client(make_worker().endpoint, on_reply=fail)
    assert healthy(client)
    for request_id in (1, 2):
        submit(client, request_id)
        assert arrived.acquire(timeout=5)
    assert seen == [1, 2]
    assert client.health is LinkState.HEALTHY


def test_a_new_client_never_gets_what_an_earlier_one_asked(
    make_worker, make_client, inbox
) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    worker = make_worker(policy)
    first = make_client(worker.endpoint)
    assert healthy(first)
    submit(first, 1)
    assert policy.started.acquire(timeout=5)
    first.close()
    second = make_client(worker.endpoint)
    assert healthy(second)
    submit(second, 1)
    assert wait_until(lambda: worker.stats().received == 2)
    gate.set()
    inbox.wait()
    assert wait_until(lambda: worker.stats().answered == 2)
    assert policy.computed == [1, 1]
    assert len(inbox.chunks) == 1
    assert second.stats().replies == 1


class FakeWorker:
    """A ROUTER that answers handshakes and pings properly and requests as the test wants."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self.endpoint = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self.answers: list[list[wire.Buffer]] = []
        self.header: RequestHeader | None = None
        self.worker = "one"
        self.hellos = 0
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            if not self._router.poll(20):
                continue
            client, *frames = self._router.recv_multipart()
            message, _ = wire.decode(frames)
            if isinstance(message, Hello):
                self.hellos += 1
                answer = Welcome(message.session, self.worker, "fake", HASH, (), (16,))
                self._router.send_multipart([client, *wire.encode(answer)])
            elif isinstance(message, Ping):
                answer = Pong(message.session, message.seq, self.worker)
                self._router.send_multipart([client, *wire.encode(answer)])
            elif isinstance(message, RequestHeader):
                self.header = message
                for frames in self.answer(message):
                    self._router.send_multipart([client, *frames])

    def answer(self, header: RequestHeader) -> list[list[wire.Buffer]]:
        return []

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self._context.destroy(0)


@pytest.fixture
def fake() -> Iterator[FakeWorker]:
    worker = FakeWorker()
    yield worker
    worker.close()


def _reply(header: RequestHeader, value: float, **changes: object) -> list[wire.Buffer]:
    reply = ReplyHeader(
        header.session, header.request_id, header.episode_id, header.stamp_ns, 2, 2, 0.05, 16,
        0.0, 0.0, 0.0,
    )  # fmt: skip
    data = encode_chunk(np.full((2, 2), value, np.float32))
    return wire.encode(replace(reply, **changes), data)  # type: ignore[arg-type]


def test_replies_of_another_session_request_or_stamp_are_not_taken(
    fake, make_client, inbox
) -> None:
    fake.answer = lambda header: [
        _reply(header, 1, session="an earlier incarnation"),
        _reply(header, 2, request_id=header.request_id - 1),
        _reply(header, 3, stamp_ns=header.stamp_ns + 1),
        [b"garbage"],
        wire.encode(Hello("what?")),
        _reply(header, 4),
        _reply(header, 5),
    ]
    client = make_client(fake.endpoint)
    assert healthy(client)
    submit(client, 7)
    inbox.wait()
    assert wait_until(lambda: client.stats().dropped == 3)
    assert [chunk.actions[0, 0] for chunk in inbox.chunks] == [4.0]
    assert client.stats().rejected == 3


def test_the_deadline_travels_as_a_duration(fake, make_client) -> None:
    client = make_client(fake.endpoint)
    assert healthy(client)
    submit(client, timeout_s=0.5)
    assert wait_until(lambda: fake.header is not None)
    assert 0.3 < fake.header.remaining_s <= 0.5


def test_another_incarnation_of_the_worker_is_greeted_anew(fake, make_client) -> None:
    client = make_client(fake.endpoint)
    assert healthy(client)
    assert fake.hellos == 1
    fake.worker = "two"
    assert wait_until(lambda: fake.hellos == 2)
    assert healthy(client)
    assert not wait_until(lambda: fake.hellos > 2, timeout_s=0.5)


def test_close_is_quick_and_may_be_repeated(make_worker, make_client) -> None:
    client = make_client(make_worker().endpoint)
    assert healthy(client)
    start = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - start < 0.3
    assert not submit(client)


def test_a_client_may_close_itself_from_its_own_callback(make_worker, make_client) -> None:
    closed = threading.Event()

    def close(_chunk: ActionChunk) -> None:
        client.close()
        closed.set()

    client = make_client(make_worker().endpoint, on_reply=close)
    assert healthy(client)
    submit(client)
    assert closed.wait(5)


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:5555", "tcp://:5555", "http://a:1", "tcp://a:*"]
)
def test_a_malformed_endpoint_is_refused_at_once(endpoint: str, make_client) -> None:
    with pytest.raises(ValueError, match="endpoint is '"):
        make_client(endpoint)
