"""Worker processes, an inbox for chunks, and ways to wait for something."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import zmq
from cloud_test_policy import HASH, request
from hypothesis import settings

from ros_vla_accel.cloud import wire
from ros_vla_accel.cloud.client import CloudClient
from ros_vla_accel.cloud.codec import encode_observation, request_header
from ros_vla_accel.cloud.messages import Message, RequestHeader
from ros_vla_accel.contracts import ActionChunk, Observation
from ros_vla_accel.partition.link import LinkState

_MAIN = (
    "import sys; from ros_vla_accel.cloud.worker_main import main; sys.exit(main(sys.argv[1:]))"
)

steady = settings(deadline=None, derandomize=True)
"""For hypothesis: the same cases each time, and no clock on a busy machine."""


def wait_until(condition: Callable[[], object], timeout_s: float = 5.0) -> bool:
    """For states that nobody signals; returns whether the condition came true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class Inbox:
    """Collects chunks from a client's thread."""

    def __init__(self) -> None:
        self.chunks: list[ActionChunk] = []
        self._arrived = threading.Condition()

    def __call__(self, chunk: ActionChunk) -> None:
        with self._arrived:
            self.chunks.append(chunk)
            self._arrived.notify_all()

    def wait(self, count: int = 1, timeout_s: float = 5.0) -> list[ActionChunk]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.chunks) >= count, timeout_s)
            return self.chunks


def run_worker(*arguments: str) -> subprocess.Popen[str]:
    """``ros-vla-accel cloud`` with the test policy; its log is on stderr."""
    command = [sys.executable, "-c", _MAIN, "--policy", "cloud_test_policy:mixing", *arguments]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


class WorkerProcess:
    """A worker that has said that it is ready."""

    def __init__(self, *arguments: str, bind: str = "tcp://127.0.0.1:*", args: str | None = None):
        options = [*(arguments or ["--insecure"])]
        options += [] if args is None else ["--policy-args", args]
        self.process = run_worker("--bind", bind, *options)
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if "ready on" in line:
                self.endpoint = line.split("ready on ")[1].split()[0]
                self._reader = threading.Thread(target=self._read, daemon=True)
                self._reader.start()
                return
        raise AssertionError("worker ended: " + " | ".join(self.lines))

    def _read(self) -> None:
        """A process whose log nobody reads stands still once the pipe is full."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            self.lines += (line.rstrip() for line in self.process.stderr)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
        status = self.process.wait(5)
        assert self.process.stderr is not None
        if hasattr(self, "_reader"):
            self._reader.join(5)
        self.process.stderr.close()
        return status


def submit(
    client: CloudClient, request_id: int = 1, timeout_s: float = 5.0, encoding: str = "raw"
) -> bool:
    asked = request(request_id)
    assert isinstance(asked.observation, Observation)
    tensors, data = encode_observation(asked.observation, encoding)
    return client.submit(request_header(asked, tensors, HASH), data, timeout_s)


def healthy(client: CloudClient) -> bool:
    return wait_until(lambda: client.health is LinkState.HEALTHY)


class Peer:
    """A DEALER that speaks the wire format, or anything else."""

    def __init__(
        self, endpoint: str, context: zmq.Context, curve: tuple[str, str, str] | None = None
    ):
        """curve: own public key and secret, and the worker's public key."""
        self.socket = context.socket(zmq.DEALER)
        if curve is not None:
            options = (zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY, zmq.CURVE_SERVERKEY)
            for option, key in zip(options, curve, strict=True):
                self.socket.setsockopt(option, key.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 5000)
        self.socket.connect(endpoint)

    def say(self, message: Message, data: bytes | None = None) -> None:
        self.socket.send_multipart(wire.encode(message, data))

    def hear(self) -> Message:
        return wire.decode(self.socket.recv_multipart())[0]

    def ask(self, request_id: int = 1, **changes: object) -> None:
        header, data = peer_request(request_id, **changes)
        self.say(header, data)


def peer_request(request_id: int, **changes: object) -> tuple[RequestHeader, bytes]:
    asked = request(request_id)
    tensors, data = encode_observation(asked.observation)  # type: ignore[arg-type]
    header = request_header(asked, tensors, HASH)
    values = {"remaining_s": 5.0, "session": "me", **changes}
    return replace(header, **values), data  # type: ignore[arg-type]
