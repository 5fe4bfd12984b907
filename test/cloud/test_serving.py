"""One worker and several robots: shared inferences, robots that spoil them, and a peaceful end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from cloud_test_policy import MixingPolicy
from cloud_test_support import healthy, submit, wait_until

from ros_vla_accel.cloud.backend import Backend, InProcess
from ros_vla_accel.cloud.batching import BatchConfig
from ros_vla_accel.cloud.messages import Hello, Ping, Pong, Refusal, ReplyHeader
from ros_vla_accel.cloud.metrics import serve_metrics
from ros_vla_accel.cloud.worker import WorkerError
from ros_vla_accel.contracts import ActionChunk, InferenceRequest
from ros_vla_accel.partition.link import LinkState


class BatchPolicy(MixingPolicy):
    """Remembers its batches, and raises on request 13."""

    def __init__(self, gate: threading.Event):
        super().__init__(gate=gate)
        self.batches: list[list[tuple[int, int]]] = []

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        self.batches.append([(one.request_id, one.activation_bits) for one in requests])
        if any(one.request_id == 13 for one in requests):
            raise ValueError("request 13 has no wrist camera")
        return super().infer(requests)


@pytest.fixture
def held(make_worker, make_peer):
    """A worker at work on request 1, so that what is asked now waits: worker, policy, gate."""
    gate = threading.Event()
    policy = BatchPolicy(gate)
    worker = make_worker(policy, batch=BatchConfig(max_batch=4))
    peer = make_peer(worker)
    peer.ask(1)
    assert policy.started.acquire(timeout=5)
    yield worker, policy, gate
    gate.set()


def _waiting(worker, count: int) -> bool:
    return wait_until(lambda: worker.stats().waiting == count)


def test_robots_that_wait_share_an_inference_of_their_width(held, make_peer) -> None:
    worker, policy, gate = held
    peers = [make_peer(worker) for _ in range(5)]
    for k, (peer, bits) in enumerate(zip(peers, (8, 16, 4, 16, 2), strict=True)):
        peer.ask(10 + 2 * k, activation_bits=bits, remaining_s=5.0 + k)
        assert _waiting(worker, k + 1)
    gate.set()
    assert all(isinstance(peer.hear(), ReplyHeader) for peer in peers)
    # The policy has 8 and 16 bits; 2 and 4 run at 8.
    assert policy.batches[1:] == [[(10, 8), (14, 4), (18, 2)], [(12, 16), (16, 16)]]
    assert worker.stats().batches == 3


def test_a_shared_answer_is_the_one_of_an_inference_alone(held, make_peer) -> None:
    worker, policy, gate = held
    peers = {request_id: make_peer(worker) for request_id in (20, 21, 22)}
    for request_id, peer in peers.items():
        peer.ask(request_id, seed=request_id)
    assert _waiting(worker, 3)
    gate.set()
    together = {request_id: peer.socket.recv_multipart()[1] for request_id, peer in peers.items()}
    assert len(policy.batches[1]) == 3
    for request_id, peer in peers.items():
        peer.ask(request_id, seed=request_id)
        assert peer.socket.recv_multipart()[1] == together[request_id]
    assert len(set(together.values())) == 3


def test_a_request_that_the_policy_cannot_do_does_not_take_the_others_with_it(
    held, make_peer
) -> None:
    worker, policy, gate = held
    good, bad = make_peer(worker), make_peer(worker)
    for _ in range(2):
        good.ask(12)
        bad.ask(13)
        assert _waiting(worker, 2) or gate.is_set()
        gate.set()
        assert isinstance(good.hear(), ReplyHeader)
        refused = bad.hear()
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.text) == (
            "policy",
            "ValueError: request 13 has no wrist camera",
        )
    mixed = [batch for batch in policy.batches if len(batch) > 1]
    assert len(mixed) == 1, "after that it is computed alone"
    bad.ask(14)
    assert isinstance(bad.hear(), ReplyHeader)
    assert (worker.stats().answered, worker.stats().failed) == (4, 2)


class TwoLanes(Backend):
    """Two policies, each for one batch at a time."""

    lanes = 2

    def __init__(self, *policies: MixingPolicy):
        self.spec = policies[0].spec
        self._idle = list(map(InProcess, policies))
        self.trouble = ""

    def infer(
        self, robots: Sequence[bytes], requests: Sequence[InferenceRequest], deadline_s: float
    ) -> list[ActionChunk]:
        policy = self._idle.pop()
        try:
            return policy.infer(robots, requests, deadline_s)
        finally:
            self._idle.append(policy)

    def problem(self) -> str:
        return self.trouble


def test_a_lane_that_is_busy_does_not_hold_up_the_other(make_worker, make_peer) -> None:
    gate = threading.Event()
    slow, quick = MixingPolicy(gate=gate), MixingPolicy()
    worker = make_worker(TwoLanes(quick, slow))
    patient, others = make_peer(worker), [make_peer(worker) for _ in range(2)]
    patient.ask(1)
    assert slow.started.acquire(timeout=5)
    for request_id in range(2, 12):
        peer = others[request_id % 2]
        peer.ask(request_id)
        assert isinstance(peer.hear(), ReplyHeader)
    gate.set()
    answer = patient.hear()
    assert isinstance(answer, ReplyHeader)
    assert answer.request_id == 1
    assert worker.stats().answered == 11


def test_a_backend_in_trouble_is_told_at_once_and_its_end_by_a_probe(
    make_worker, make_client, inbox
) -> None:
    backend = TwoLanes(MixingPolicy(), MixingPolicy())
    worker = make_worker(backend)
    client = make_client(worker.endpoint)
    assert healthy(client)
    backend.trouble = "none of 2 replicas runs"
    assert wait_until(lambda: client.health < LinkState.SUSPECT)
    assert client.stats().reason == "none of 2 replicas runs"
    assert not submit(client, 1)
    backend.trouble = ""
    assert healthy(client)
    assert submit(client, 2)
    assert [chunk.request_id for chunk in inbox.wait()] == [2]


def test_what_waits_is_still_answered_when_the_worker_ends_and_nothing_new_is_taken(
    held, make_peer
) -> None:
    worker, _, gate = held
    waiting, idle = make_peer(worker), make_peer(worker)
    idle.say(Ping("idle", 1))
    assert isinstance(idle.hear(), Pong)
    waiting.ask(2)
    assert _waiting(worker, 1)
    ending = threading.Thread(target=worker.stop)
    ending.start()

    def says_closing() -> bool:
        idle.say(Ping("idle", 2))
        answer = idle.hear()
        return isinstance(answer, Refusal) and (answer.code, answer.session) == ("closing", "idle")

    assert wait_until(says_closing)
    idle.say(Hello("idle"))
    idle.ask(3)
    assert [idle.hear().code, idle.hear().code] == ["closing", "closing"]
    waiting.say(Ping("waiting", 1))
    assert isinstance(waiting.hear(), Pong), "its answer is still to come"
    gate.set()
    assert isinstance(waiting.hear(), ReplyHeader)
    ending.join(5)


def test_an_ending_that_takes_too_long_refuses_what_is_left(held, make_peer) -> None:
    worker, _, _ = held
    waiting = make_peer(worker)
    waiting.ask(2)
    assert _waiting(worker, 1)
    assert not worker.stop(0.1), "the inference hangs"
    refused = waiting.hear()
    assert isinstance(refused, Refusal)
    assert (refused.request_id, refused.code) == (2, "closing")


def test_sigterm_lets_an_inference_finish_and_turns_the_robot_to_the_edge(
    make_process, make_client, inbox, tmp_path: Path
) -> None:
    arguments = tmp_path / "gated.yaml"
    arguments.write_text(f"folder: {tmp_path}\n")
    worker = make_process("--insecure", "--policy", "cloud_test_policy:gated", args=str(arguments))
    client, idle = make_client(worker.endpoint), make_client(worker.endpoint)
    assert healthy(client)
    assert healthy(idle)
    submit(client, 5)
    assert wait_until((tmp_path / "started").exists)
    worker.send(signal.SIGTERM)
    assert wait_until(lambda: "this worker is ending" in idle.stats().reason)
    assert idle.health < LinkState.SUSPECT
    (tmp_path / "go").touch()
    assert [chunk.request_id for chunk in inbox.wait(1)] == [5]
    assert worker.process.wait(5) == 0


def test_a_policy_that_ends_its_thread_ends_the_worker(
    make_process, make_client, tmp_path
) -> None:
    worker = make_process("--insecure", "--policy", "cloud_test_policy:exiting")
    client = make_client(worker.endpoint)
    assert healthy(client)
    submit(client, 1)
    assert worker.process.wait(5) == 1
    assert wait_until(lambda: client.health is not LinkState.HEALTHY)


def test_metrics_say_what_became_of_the_requests(make_worker, make_peer) -> None:
    pytest.importorskip("prometheus_client")
    policy = MixingPolicy()
    metrics = serve_metrics("127.0.0.1:0", policy.spec)
    assert metrics is not None
    try:
        worker = make_worker(policy, on_batch=metrics.on_batch)
        metrics.watch(worker.stats)
        peer = make_peer(worker)
        peer.ask(1)
        peer.hear()
        peer.ask(2, policy_hash="beef")
        peer.hear()
        peer.socket.send(b"garbage")
        assert wait_until(lambda: worker.stats().garbage == 1)
        # on_batch follows the answer.
        assert wait_until(lambda: "ros_vla_accel_batch_size_count 1.0" in _read(metrics.url))
        text = _read(metrics.url)
        for line in (
            'ros_vla_accel_requests_total{outcome="answered"} 1.0',
            'ros_vla_accel_requests_total{outcome="refused"} 1.0',
            "ros_vla_accel_garbage_total 1.0",
            "ros_vla_accel_queue_seconds_count 1.0",
            "ros_vla_accel_waiting 0.0",
            'name="mixing"',
        ):
            assert line in text
        with pytest.raises(WorkerError, match="metrics cannot be served at"):
            serve_metrics(metrics.url.split("/")[2], policy.spec)
    finally:
        metrics.close()


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_without_prometheus_client_the_worker_works_and_says_so() -> None:
    code = (
        "import sys, logging; sys.modules['prometheus_client'] = None\n"
        "logging.basicConfig()\n"
        "from ros_vla_accel.cloud.metrics import serve_metrics\n"
        "assert serve_metrics('9464', None) is None\n"
        "assert serve_metrics(None, None) is None\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ros_vla_accel[cloud]'" in run.stderr
