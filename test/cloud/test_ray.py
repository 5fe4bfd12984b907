"""Replicas on a real Ray Serve cluster of this machine: some die, all die, one loads another
checkpoint; robots that ask over ZeroMQ meanwhile always learn what became of their requests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cloud_test_policy import HASH, MixingPolicy, request
from cloud_test_support import Inbox, WorkerProcess, healthy, run_worker, submit, wait_until

from ros_vla_accel.cloud.client import CloudClient
from ros_vla_accel.partition.link import LinkState

ROBOTS, REQUESTS = 4, 60
START_S = 60.0


class Cluster:
    """A worker with two replicas, and what they leave in its folder."""

    def __init__(self, folder: Path, bind: str = "tcp://127.0.0.1:*", address: str | None = None):
        self.folder = folder
        self.announce(HASH)
        arguments = folder / "policy.yaml"
        arguments.write_text(f"folder: {folder}\ndelay_s: 0.02\n")
        self.worker = WorkerProcess(
            *("--insecure", "--policy", "cloud_test_policy:replicated"),
            *("--backend", "ray", "--replicas", "2"),
            *(() if address is None else ("--ray-address", address)),
            bind=bind,
            args=str(arguments),
        )
        self.endpoint = self.worker.endpoint
        self.until_both_run(0)

    def announce(self, checkpoint: str) -> None:
        (self.folder / "hash").write_text(checkpoint)

    def replicas(self) -> list[int]:
        """Process ids of those that live."""
        ids = [int(path.stem) for path in self.folder.glob("*.pid")]
        return [one for one in ids if Path(f"/proc/{one}").exists()]

    def kill(self, replica: int) -> None:
        os.kill(replica, signal.SIGKILL)

    def said(self, text: str) -> int:
        return sum(text in line for line in self.worker.lines)

    def until_both_run(self, before: int) -> None:
        """before: how often it had said so."""
        text = "2 of 2 replicas run"
        assert wait_until(lambda: self.said(text) > before, START_S), self.worker.lines

    def counts(self) -> dict[str, int]:
        """The worker's, once it has ended."""
        self.worker.send(signal.SIGTERM)
        assert self.worker.process.wait(20) == 0
        assert wait_until(lambda: self.said("ended:"))
        line = next(line for line in self.worker.lines if "ended:" in line)
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    cluster = Cluster(tmp_path_factory.mktemp("replicas"))
    yield cluster
    cluster.worker.end()


class Robot:
    """Asks again as soon as it knows what became of its last request."""

    def __init__(self, number: int, endpoint: str):
        self.inbox = Inbox()
        self.client = CloudClient(endpoint, HASH, self.inbox, keys=None)
        self.unanswered: list[int] = []
        self.sent = self.withheld = 0
        self._first = 1000 * number
        self.thread = threading.Thread(target=self._ask_on)

    def settled(self) -> int:
        stats = self.client.stats()
        return stats.replies + stats.expired + stats.rejected

    def _ask_on(self) -> None:
        for k in range(REQUESTS):
            assert healthy(self.client)
            before = self.settled()
            if not submit(self.client, self._first + k, timeout_s=1.0):
                self.withheld += 1  # the link is down and says why
                continue
            self.sent += 1
            if not wait_until(lambda before=before: self.settled() > before, 3.0):
                self.unanswered.append(self._first + k)


def test_a_replica_killed_under_load_costs_no_robot_an_answer(cluster: Cluster) -> None:
    robots = [Robot(number, cluster.endpoint) for number in range(1, ROBOTS + 1)]
    try:
        for robot in robots:
            assert healthy(robot.client)
            robot.thread.start()
        victims = cluster.replicas()
        assert len(victims) == 2
        assert wait_until(lambda: sum(len(r.inbox.chunks) for r in robots) > REQUESTS, 20)
        cluster.kill(victims[0])
        answered_before = sum(len(robot.inbox.chunks) for robot in robots)
        for robot in robots:
            robot.thread.join(60)
        assert [robot.unanswered for robot in robots] == [[]] * ROBOTS
        stats = [robot.client.stats() for robot in robots]
        assert sum(s.replies for s in stats) > answered_before
        # The other replica computed what the dead one had: no robot waited for a restart.
        assert sum(s.expired + s.rejected for s in stats) <= ROBOTS
        assert [r.sent + r.withheld for r in robots] == [REQUESTS] * ROBOTS
        assert all(robot.sent == robot.settled() for robot in robots)
        chunk = robots[0].inbox.chunks[-1]
        expected = MixingPolicy().infer([request(chunk.request_id)])[0]
        np.testing.assert_array_equal(chunk.actions, expected.actions)
    finally:
        for robot in robots:
            robot.client.close()
    cluster.until_both_run(1)
    revived = cluster.replicas()
    assert len(revived) == 2
    assert victims[1] in revived


def test_replicas_of_another_checkpoint_never_answer_and_the_robots_are_told(
    cluster: Cluster,
) -> None:
    inbox = Inbox()
    client = CloudClient(cluster.endpoint, HASH, inbox, keys=None)
    try:
        assert healthy(client)
        cluster.announce("beef" * 16)
        both = cluster.said("2 of 2 replicas run")
        for replica in cluster.replicas():
            cluster.kill(replica)
        assert wait_until(lambda: client.health < LinkState.SUSPECT, 10)
        assert wait_until(lambda: "none of 2 replicas runs" in client.stats().reason, 20)
        start = time.monotonic()
        assert not submit(client, 1), "a link that is down takes nothing"
        assert time.monotonic() - start < 1.0
        assert wait_until(lambda: cluster.said("loaded policy 'mixing' with hash 'beef"), 30)
        assert client.health < LinkState.SUSPECT

        cluster.announce(HASH)
        cluster.until_both_run(both)
        assert wait_until(lambda: client.health is LinkState.HEALTHY)
        assert submit(client, 2)
        assert [chunk.request_id for chunk in inbox.wait()] == [2]
    finally:
        client.close()


def test_every_request_is_counted_once(cluster: Cluster) -> None:
    counts = cluster.counts()
    outcomes = ("answered", "superseded", "expired", "refused", "busy", "failed", "unavailable")
    assert counts["received"] > ROBOTS * REQUESTS / 2
    assert counts["received"] == sum(counts[name] for name in outcomes)
    assert counts["waiting"] == counts["failed"] == 0
    assert wait_until(lambda: not cluster.replicas(), 20), "what it started ends with it"


def test_a_policy_that_cannot_be_loaded_is_told_as_without_ray() -> None:
    pytest.importorskip("ray")
    arguments = ("--insecure", "--policy", "cloud_test_policy:missing", "--backend", "ray")
    process = run_worker(*arguments)
    _, errors = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "[ERROR] [cloud]: policy 'cloud_test_policy:missing': " in errors
    assert "has no function 'missing'" in errors
    assert "Traceback" not in errors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.slow
def test_on_a_running_cluster_a_worker_takes_the_place_of_its_killed_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # listens on loopback
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    address, endpoint = f"127.0.0.1:{_free_port()}", f"tcp://127.0.0.1:{_free_port()}"
    ray = str(Path(sys.executable).with_name("ray"))
    options = ["--head", "--block", "--num-cpus=2", f"--port={address.partition(':')[2]}"]
    with subprocess.Popen(
        [ray, "start", *options, "--include-dashboard=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as head:
        try:
            assert wait_until(lambda: _listens(address), START_S)
            time.sleep(3.0)  # until its node is known, too
            first = Cluster(tmp_path, bind=endpoint, address=address)
            before = first.replicas()
            first.worker.end()
            assert first.replicas() == before, "they belong to the cluster"
            second = Cluster(tmp_path, bind=endpoint, address=address)
            assert not set(before) & set(second.replicas()), "two CPUs have room for two"
            counts = second.counts()
            assert counts["received"] == 0
            assert wait_until(lambda: not second.replicas(), 20)
        finally:
            os.killpg(head.pid, signal.SIGKILL)


@pytest.mark.parametrize("option", ["--replicas=2", "--ray-address=auto", "--gpus=1"])
def test_options_of_ray_are_refused_without_it(option: str) -> None:
    process = run_worker("--insecure", option)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{option.partition('=')[0]} needs --backend ray" in errors


def test_without_ray_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from ros_vla_accel.cloud.worker_main import main\n"
        "sys.exit(main(['--insecure', '--backend', 'ray']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install 'ros_vla_accel[ray]'" in run.stderr
    assert "Traceback" not in run.stderr
