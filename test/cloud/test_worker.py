"""The worker, asked by bare sockets that do as they please."""

from __future__ import annotations

import random
import socket
import threading

import msgpack
import numpy as np
import pytest
from cloud_test_policy import HASH, MixingPolicy, request
from cloud_test_support import Peer, peer_request, wait_until

from ros_vla_accel.cloud import wire
from ros_vla_accel.cloud.batching import BatchConfig
from ros_vla_accel.cloud.codec import decode_chunk
from ros_vla_accel.cloud.messages import (
    Hello,
    Ping,
    Pong,
    Refusal,
    ReplyHeader,
    Welcome,
)
from ros_vla_accel.cloud.worker import Worker, WorkerError


def test_hello_is_answered_with_the_policy(make_worker, make_peer) -> None:
    peer = make_peer(make_worker())
    peer.say(Hello("me"))
    welcome = peer.hear()
    assert isinstance(welcome, Welcome)
    assert (welcome.session, welcome.policy, welcome.policy_hash) == ("me", "mixing", HASH)
    assert (welcome.stages, welcome.widths) == (("vision", "backbone", "head"), (8, 16))


def test_a_reply_echoes_the_request_and_reports_durations(make_worker, make_peer) -> None:
    peer, asked = make_peer(make_worker()), request(9)
    peer.ask(9)
    frames = peer.socket.recv_multipart()
    header, data = wire.decode(frames)
    assert isinstance(header, ReplyHeader)
    assert (header.session, header.request_id, header.episode_id) == ("me", 9, 3)
    assert header.stamp_ns == asked.observation.stamp_ns
    assert header.timings_s == {"head": 0.001}
    assert 0 < header.inference_s < 1
    assert 0 < header.decode_s < 1
    expected = MixingPolicy().infer([asked])[0]
    np.testing.assert_array_equal(decode_chunk(header, data).actions, expected.actions)


def test_pings_are_answered_during_a_long_inference(make_worker, make_peer) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    peer = make_peer(make_worker(policy))
    peer.ask()
    assert policy.started.acquire(timeout=5)
    peer.say(Ping("me", 77))
    pong = peer.hear()
    gate.set()
    assert isinstance(pong, Pong)
    assert pong.seq == 77
    assert isinstance(peer.hear(), ReplyHeader)


def test_the_newest_request_takes_the_place_of_a_waiting_one(make_worker, make_peer) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    worker = make_worker(policy)
    peer = make_peer(worker)
    peer.ask(1)
    assert policy.started.acquire(timeout=5)
    for request_id in (2, 3, 4):
        peer.ask(request_id)
    refusals = [peer.hear(), peer.hear()]
    gate.set()
    replies = [peer.hear(), peer.hear()]
    assert [(r.request_id, r.code) for r in refusals] == [(2, "superseded"), (3, "superseded")]
    assert [r.request_id for r in replies] == [1, 4]
    assert policy.computed == [1, 4]
    assert worker.stats().superseded == 2


def test_a_request_that_waited_too_long_is_not_computed(make_worker, make_peer) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    worker = make_worker(policy)
    first, second = make_peer(worker), make_peer(worker)
    first.ask(1)
    assert policy.started.acquire(timeout=5)
    second.ask(2, remaining_s=0.0)
    assert wait_until(lambda: worker.stats().received == 2)
    gate.set()
    refusal = second.hear()
    assert isinstance(refusal, Refusal)
    assert (refusal.request_id, refusal.code) == (2, "expired")
    assert "not computed" in refusal.text
    assert policy.computed == [1]
    assert worker.stats().expired == 1


def test_a_greedy_client_is_not_served_more_often(make_worker, make_peer) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    worker = make_worker(policy)
    greedy, modest = make_peer(worker), make_peer(worker)
    greedy.ask(1)
    assert policy.started.acquire(timeout=5)
    for request_id in range(2, 12):
        greedy.ask(request_id)
    modest.ask(100)
    assert wait_until(lambda: worker.stats().received == 12)
    greedy.ask(12)
    assert wait_until(lambda: worker.stats().received == 13)
    gate.set()
    assert isinstance(modest.hear(), ReplyHeader)
    assert isinstance(greedy.hear(), ReplyHeader | Refusal)
    assert wait_until(lambda: len(policy.computed) == 3)
    assert policy.computed == [1, 100, 12], "who was served already comes after who waits"


def test_two_clients_that_ask_without_pause_are_served_in_turn(make_worker, make_peer) -> None:
    policy = MixingPolicy(delay_s=0.002)
    worker = make_worker(policy)
    peers = {0: make_peer(worker), 1000: make_peer(worker)}

    def ask_on(start: int, peer: Peer) -> None:
        for k in range(40):
            peer.ask(start + k, remaining_s=60.0)
            assert isinstance(peer.hear(), ReplyHeader)

    threads = [threading.Thread(target=ask_on, args=item) for item in peers.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    middle = policy.computed[10:60]
    assert len(policy.computed) == 80
    assert 20 <= sum(request_id < 1000 for request_id in middle) <= 30


def test_another_policys_hash_is_refused_with_both_hashes(make_worker, make_peer) -> None:
    peer = make_peer(make_worker())
    peer.ask(1, policy_hash="beef" * 16)
    refusal = peer.hear()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "refused"
    assert "hash 'f00dcafef00d'" in refusal.text
    assert "'beefbeefbeef'" in refusal.text


def test_too_many_waiting_clients_are_told_busy(make_worker, make_peer) -> None:
    gate = threading.Event()
    policy = MixingPolicy(gate=gate)
    worker = make_worker(policy, batch=BatchConfig(max_waiting=1))
    computing, waiting, refused = (make_peer(worker) for _ in range(3))
    computing.ask(1)
    assert policy.started.acquire(timeout=5)
    waiting.ask(2)
    assert wait_until(lambda: worker.stats().received == 2)
    refused.ask(3)
    refusal = refused.hear()
    gate.set()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "busy"
    assert isinstance(waiting.hear(), ReplyHeader)


def test_a_policys_exception_becomes_its_text_without_a_traceback(make_worker, make_peer) -> None:
    peer = make_peer(make_worker(MixingPolicy(fail="gripper camera \udcff missing")))
    for request_id in (1, 2):
        peer.ask(request_id)
        refusal = peer.hear()
        assert isinstance(refusal, Refusal)
        assert (refusal.request_id, refusal.code) == (request_id, "policy")
        assert refusal.text == "RuntimeError: gripper camera ? missing"


def test_tensors_that_cannot_be_decoded_are_refused_by_name(make_worker, make_peer) -> None:
    peer = make_peer(make_worker())
    header, data = peer_request(1)
    peer.say(header, data[:100])
    refusal = peer.hear()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "bad_request"
    assert "image/front" in refusal.text


def test_the_policy_is_reset_when_the_episode_changes(make_worker, make_peer) -> None:
    policy = MixingPolicy()
    peer = make_peer(make_worker(policy))
    for request_id, episode_id in ((1, 3), (2, 3), (3, 4)):
        peer.ask(request_id, episode_id=episode_id)
        peer.hear()
    assert policy.episodes == [3, 4]


def test_another_schema_is_answered_with_ours(make_worker, make_peer) -> None:
    peer = make_peer(make_worker())
    peer.socket.send(msgpack.packb({"v": 2, "kind": "hello", "session": "me", "news": 1}))
    refusal = peer.hear()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "schema"
    assert "version 2 from the other end, 1 here" in refusal.text


def test_garbage_is_counted_and_a_legitimate_client_served_meanwhile(
    make_worker, make_peer, caplog
) -> None:
    worker = make_worker()
    vandal, honest = make_peer(worker), make_peer(worker)
    rng = random.Random(11)
    header, data = peer_request(1)
    intact = wire.encode(header, data)[0]
    sent = 600
    for k in range(sent):
        damaged = bytearray(intact)
        damaged[rng.randrange(16)] ^= rng.randrange(1, 256)  # version, kind, first key
        choices = (
            [rng.randbytes(rng.randrange(400))],
            [rng.randbytes(20) for _ in range(rng.randrange(3, 8))],
            [b""],
            [intact],  # its data is missing
            [bytes(damaged), b"short"],
        )
        vandal.socket.send_multipart(choices[k % len(choices)])
        if k % 60 == 0:
            honest.ask(k + 1)
            assert isinstance(honest.hear(), ReplyHeader)
    assert wait_until(lambda: worker.stats().garbage == sent)
    assert worker.stats().answered == 10
    warnings = [record for record in caplog.records if "dropped:" in record.message]
    assert 1 <= len(warnings) < 20, "one line a second, however many there are"


def test_bytes_that_are_not_zeromq_do_not_disturb_it(make_worker, make_peer) -> None:
    worker = make_worker()
    host, port = worker.endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)))
        peer = make_peer(worker)
        peer.ask()
        assert isinstance(peer.hear(), ReplyHeader)


@pytest.mark.parametrize("bind", ["tcp://0.0.0.0:*", "tcp://*:5555", "tcp://192.168.0.1:5555"])
def test_an_address_that_others_reach_is_refused(bind: str) -> None:
    with pytest.raises(WorkerError, match=r"plain text: use CURVE keys .* --insecure-any"):
        Worker(MixingPolicy(), bind, keys=None)


def test_insecure_any_allows_it_with_a_warning(caplog) -> None:
    worker = Worker(MixingPolicy(), "tcp://0.0.0.0:*", keys=None, insecure_any=True)
    assert worker.endpoint.startswith("tcp://0.0.0.0:")
    assert "anyone who reaches it" in caplog.text
    assert worker.stop()


def test_ipv6_loopback_is_loopback(make_worker, make_peer) -> None:
    worker = Worker(MixingPolicy(), "tcp://[::1]:*", keys=None)
    assert worker.endpoint.startswith("tcp://[::1]:")
    assert worker.stop()


def test_a_port_in_use_is_named(make_worker) -> None:
    endpoint = make_worker().endpoint
    port = endpoint.rsplit(":", 1)[1]
    with pytest.raises(WorkerError, match=f"port {port} is in use"):
        Worker(MixingPolicy(), endpoint, keys=None)


@pytest.mark.parametrize("bind", ["5555", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "ipc://x"])
def test_a_malformed_endpoint_is_named_with_an_example(bind: str) -> None:
    with pytest.raises(ValueError, match=r"expected e\.g\. tcp://127\.0\.0\.1:5555"):
        Worker(MixingPolicy(), bind, keys=None)
