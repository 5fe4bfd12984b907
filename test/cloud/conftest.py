"""Workers in process and as real subprocesses, and clients; all end with their test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

sys.path.insert(0, str(Path(__file__).parent))  # cloud_test_policy and cloud_test_support

from cloud_test_policy import HASH, MixingPolicy
from cloud_test_support import Inbox, Peer, WorkerProcess

from ros_vla_accel.cloud.client import CloudClient
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.worker import Worker


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(policy: MixingPolicy | None = None, **options: object) -> Worker:
        options = {"keys": None, **options}
        worker = Worker(policy or MixingPolicy(), **options)  # type: ignore[arg-type]
        workers.append(worker)
        worker.start()
        return worker

    yield make
    for worker in workers:
        assert worker.stop()


@pytest.fixture
def make_process() -> Iterator[Callable[..., WorkerProcess]]:
    processes: list[WorkerProcess] = []

    def make(*arguments: str, **options: str) -> WorkerProcess:
        processes.append(WorkerProcess(*arguments, **options))
        return processes[-1]

    yield make
    for process in processes:
        process.end()


@pytest.fixture
def make_client(inbox: Inbox) -> Iterator[Callable[..., CloudClient]]:
    clients: list[CloudClient] = []

    def make(
        endpoint: str,
        policy_hash: str = HASH,
        on_reply: object = None,
        keys: KeyFolder | None = None,
    ) -> CloudClient:
        client = CloudClient(endpoint, policy_hash, on_reply or inbox, keys=keys)  # type: ignore
        clients.append(client)
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def make_peer() -> Iterator[Callable[[Worker], Peer]]:
    context = zmq.Context()
    yield lambda worker: Peer(worker.endpoint, context)
    context.destroy(0)
