"""Workers as processes of their own: killed, frozen, restarted, cut off."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_test_policy import MixingPolicy
from cloud_test_support import healthy, run_worker, submit, wait_until

from ros_vla_accel.partition.link import LinkState


def _time_to(condition, timeout_s: float = 5.0) -> float:
    start = time.monotonic()
    assert wait_until(condition, timeout_s)
    return time.monotonic() - start


def test_a_killed_worker_is_down_within_a_second_and_its_successor_is_noticed(
    make_process, make_client, inbox
) -> None:
    first = make_process()
    client = make_client(first.endpoint)
    assert healthy(client)
    submit(client, 1)
    inbox.wait(1)

    first.send(signal.SIGKILL)
    assert _time_to(lambda: client.health < LinkState.SUSPECT) < 1.5
    assert not submit(client, 2)
    assert client.stats().reason

    make_process(bind=first.endpoint)
    assert _time_to(lambda: client.health is LinkState.HEALTHY) < 2.5
    assert submit(client, 3)
    assert [chunk.request_id for chunk in inbox.wait(2)] == [1, 3]


def test_a_frozen_worker_is_suspect_then_down_and_noticed_when_it_thaws(
    make_process, make_client, inbox
) -> None:
    worker = make_process()
    client = make_client(worker.endpoint)
    assert healthy(client)

    states: list[LinkState] = []
    worker.send(signal.SIGSTOP)
    submit(client, 1, timeout_s=0.3)

    def down() -> bool:
        if not states or states[-1] is not client.health:
            states.append(client.health)
        return client.health is LinkState.DOWN

    assert _time_to(down) < 1.5
    assert states[-2:] == [LinkState.SUSPECT, LinkState.DOWN]
    assert client.stats().expired == 1
    time.sleep(1.0)  # let several probes fail, as they do in a long outage

    worker.send(signal.SIGCONT)
    assert _time_to(lambda: client.health is LinkState.HEALTHY) < 2.5
    assert submit(client, 2)
    assert [chunk.request_id for chunk in inbox.wait()] == [2]


def test_close_is_quick_though_the_worker_is_frozen(make_process, make_client) -> None:
    worker = make_process()
    client = make_client(worker.endpoint)
    assert healthy(client)
    worker.send(signal.SIGSTOP)
    for request_id in range(20):
        submit(client, request_id)
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 0.5


def test_a_worker_restarted_with_another_policy_is_refused(
    make_process, make_client, tmp_path: Path
) -> None:
    first = make_process()
    client = make_client(first.endpoint)
    assert healthy(client)
    first.send(signal.SIGKILL)
    assert wait_until(lambda: client.health < LinkState.SUSPECT)
    arguments = tmp_path / "other.yaml"
    arguments.write_text(f"checkpoint_hash: {'beef' * 16}\n")
    make_process(bind=first.endpoint, args=str(arguments))
    assert wait_until(lambda: "with hash 'beefbeefbeef'" in client.stats().reason)
    assert client.health < LinkState.SUSPECT


class Relay:
    """Forwards TCP between a client and a worker, until it is cut: then it swallows everything.

    Connections stay open while it is cut, as they do when a cable is pulled.
    """

    def __init__(self, target: str):
        host, port = target.removeprefix("tcp://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = False
        self._stop = False
        self._peers: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            readable = [] if self.cut else [self._listener]
            for ready in select.select([*readable, *self._peers], [], [], 0.02)[0]:
                if ready is self._listener:
                    client, worker = ready.accept()[0], socket.create_connection(self._target)
                    self._peers |= {client: worker, worker: client}
                elif ready in self._peers:
                    self._forward(ready)

    def _forward(self, source: socket.socket) -> None:
        content = b""
        with contextlib.suppress(OSError):
            content = source.recv(1 << 20)
        if not content:
            for end in (source, self._peers.pop(source)):
                self._peers.pop(end, None)
                end.close()
        elif not self.cut:
            self._peers[source].sendall(content)

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        for end in (self._listener, *self._peers):
            end.close()


@pytest.fixture
def relay(make_worker) -> Iterator[Relay]:
    made = Relay(make_worker(MixingPolicy()).endpoint)
    yield made
    made.close()


def test_a_silent_cut_is_noticed_and_so_is_its_end(relay, make_client, inbox) -> None:
    client = make_client(relay.endpoint)
    assert healthy(client)
    relay.cut = True
    assert _time_to(lambda: client.health is LinkState.DOWN) < 1.5
    time.sleep(1.5)  # longer than one connection attempt may hang
    relay.cut = False
    assert _time_to(lambda: client.health is LinkState.HEALTHY) < 2.5
    assert submit(client, 1)
    inbox.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_command_ends_with_status_0_on_a_signal(
    number: signal.Signals, make_process, make_client
) -> None:
    worker = make_process()
    client = make_client(worker.endpoint)
    assert healthy(client)
    worker.send(number)
    assert worker.process.wait(5) == 0


def test_the_worker_command_ends_with_status_0_though_an_inference_hangs(
    make_process, make_client, tmp_path: Path
) -> None:
    arguments = tmp_path / "slow.yaml"
    arguments.write_text("delay_s: 60\n")
    worker = make_process(args=str(arguments))
    client = make_client(worker.endpoint)
    assert healthy(client)
    submit(client)
    assert wait_until(lambda: client.stats().bytes_sent > 10_000)
    worker.send(signal.SIGTERM)
    assert worker.process.wait(5) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--insecure", "--bind", "tcp://0.0.0.0:5555"], "--insecure-any"),
        (["--insecure", "--bind", "nonsense"], "endpoint is 'nonsense'"),
        (["--insecure", "--policy", "cloud_test_policy:missing"], "has no function 'missing'"),
        (["--keys", "/nowhere"], "/nowhere/worker.key is missing; `ros-vla-accel keys new"),
    ],
)
def test_the_worker_command_explains_what_it_cannot_do(arguments: list[str], message: str) -> None:
    process = run_worker(*arguments)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert message in errors
    assert "Traceback" not in errors


def test_the_worker_command_names_a_port_in_use(make_worker) -> None:
    endpoint = make_worker().endpoint
    process = run_worker("--insecure", "--bind", endpoint)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"port {endpoint.rsplit(':', 1)[1]} is in use" in errors


def test_the_cloud_package_needs_neither_torch_nor_ros_nor_the_simulator() -> None:
    code = (
        "import sys, ros_vla_accel.cloud.client, ros_vla_accel.cloud.worker_main\n"
        "heavy = {'torch', 'rclpy', 'mujoco', 'metaworld', 'cyclonedds'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
