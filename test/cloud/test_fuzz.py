"""A worker under messages that nobody should send: it lives, answers, and does not grow."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from cloud_test_policy import MixingPolicy, request
from cloud_test_support import Peer, WorkerProcess, peer_request

from ros_vla_accel.cloud import wire
from ros_vla_accel.cloud.codec import decode_chunk, encode_observation, request_header
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.messages import Hello, Ping, Pong, ReplyHeader

Frames = list[bytes]

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1, -(2**63), 1e308, -0.0,
    float("nan"), float("inf"), "", "x" * 5000, "\udcff", b"", b"\x00" * 5000, [], {}, [[]] * 50,
    {"a": {"b": {}}}, "raw", "png", "jpeg", "float32", "int8", [2**26, 2**26], [0, 3, 3], [1e9],
)  # fmt: skip


def _seeds() -> list[Frames]:
    """Messages that are right: of each kind, and in each encoding of images."""
    seeds: list[Frames] = []
    for encoding in ("raw", "png", "jpeg"):
        asked = request(1)
        tensors, data = encode_observation(asked.observation, encoding)  # type: ignore[arg-type]
        header = request_header(asked, tensors, MixingPolicy().spec.identity)
        packed = msgpack.unpackb(bytes(wire.encode(header, data)[0]))
        packed |= {"session": "fuzz", "remaining_s": 0.5}
        seeds.append([msgpack.packb(packed), data])
    for message in (Hello("fuzz"), Ping("fuzz", 7), Pong("fuzz", 7, "w")):
        seeds.append([bytes(frame) for frame in wire.encode(message)])
    return seeds


class Fuzzer:
    """Messages from one seed: bytes damaged, fields swapped, frames added, lost and made up."""

    def __init__(self, seed: int):
        self._rng = random.Random(seed)
        self._seeds = _seeds()
        self._ways: tuple[Callable[[Frames], Frames], ...] = (
            self._noise, self._flip, self._flip_data, self._cut, self._splice, self._frames,
            self._field, self._field, self._descriptor, self._descriptor, self._nested,
        )  # fmt: skip

    def message(self) -> Frames:
        rng = self._rng
        frames = list(rng.choice(self._seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            frames = rng.choice(self._ways)(frames)
        return frames or [b""]

    def _noise(self, _: Frames) -> Frames:
        rng = self._rng
        return [rng.randbytes(rng.randrange(300)) for _ in range(rng.randrange(1, 4))]

    def _flip(self, frames: Frames, index: int = 0) -> Frames:
        damaged = bytearray(frames[index])
        for _ in range(self._rng.randrange(1, 8) if damaged else 0):
            damaged[self._rng.randrange(len(damaged))] = self._rng.randrange(256)
        return [*frames[:index], bytes(damaged), *frames[index + 1 :]]

    def _flip_data(self, frames: Frames) -> Frames:
        return self._flip(frames, len(frames) - 1)

    def _cut(self, frames: Frames) -> Frames:
        index = self._rng.randrange(len(frames))
        kept = frames[index][: self._rng.randrange(len(frames[index]) + 1)]
        return [*frames[:index], kept, *frames[index + 1 :]]

    def _splice(self, frames: Frames) -> Frames:
        head, at = frames[0], self._rng.randrange(len(frames[0]) + 1)
        return [head[:at] + self._rng.randbytes(9) + head[at:], *frames[1:]]

    def _frames(self, frames: Frames) -> Frames:
        rng = self._rng
        which = rng.randrange(4)
        if which == 0:
            return frames[1:] or [b""]
        if which == 1:
            return frames * rng.randrange(2, 12)
        return [b"", *frames] if which == 2 else [*frames, rng.randbytes(50)]

    def _field(self, frames: Frames) -> Frames:
        return self._edit(frames, lambda header: header)

    def _descriptor(self, frames: Frames) -> Frames:
        def inside(header: dict[str, Any]) -> Any:
            tensors = header.get("tensors")
            return self._rng.choice(tensors) if isinstance(tensors, list) and tensors else header

        return self._edit(frames, inside)

    def _edit(self, frames: Frames, part: Callable[[dict[str, Any]], Any]) -> Frames:
        try:
            header = msgpack.unpackb(frames[0])
            inside = part(header)
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            key, value = self._rng.choice(keys), self._rng.choice(_VALUES)
            if isinstance(inside, dict) and self._rng.random() < 0.1:
                del inside[key]
            else:
                inside[key] = value
            return [msgpack.packb(header, unicode_errors="surrogatepass"), *frames[1:]]
        except Exception:  # damaged before
            return frames

    def _nested(self, frames: Frames) -> Frames:
        depth = self._rng.choice((5, 600, 1010, 5000))
        return [
            b"\x91" * depth + self._rng.choice((b"\xc0", b"", b"\xdd\xff\xff\xff\xff")),
            *frames,
        ]


def _memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("process has no memory")


def _expect_service(peer: Peer, number: int) -> None:
    """An honest robot is answered, and exactly."""
    peer.ask(number, remaining_s=30.0)
    header, data = wire.decode(peer.socket.recv_multipart())
    assert isinstance(header, ReplyHeader)
    assert header.request_id == number
    expected = MixingPolicy().infer([request(number)])[0]
    np.testing.assert_array_equal(decode_chunk(header, data).actions, expected.actions)


def _storm(worker: WorkerProcess, messages: int, seed: int) -> None:
    context = zmq.Context()
    vandal, honest = Peer(worker.endpoint, context), Peer(worker.endpoint, context)
    vandal.socket.setsockopt(zmq.SNDTIMEO, 10_000)  # a worker that does not read is an error
    honest.socket.setsockopt(zmq.RCVTIMEO, 20_000)
    fuzzer = Fuzzer(seed)
    settled_mb = 0.0
    answered = 0
    try:
        _expect_service(honest, 1)
        for k in range(messages):
            vandal.socket.send_multipart(fuzzer.message())
            while vandal.socket.poll(0):
                vandal.socket.recv_multipart()
                answered += 1
            if k % 500 == 499:
                # A barrier: the worker keeps up, so that memory is not what merely waits.
                vandal.say(Ping("fuzz", k))
                while True:
                    frames = vandal.socket.recv_multipart()
                    if len(frames) == 1 and wire.decode(frames)[0] == Pong("fuzz", k, _id(frames)):
                        break
            if k % (messages // 10) == 0:
                _expect_service(honest, k + 2)
            if k == messages // 4:
                settled_mb = _memory_mb(worker.process.pid)
        _expect_service(honest, messages + 2)
        assert worker.process.poll() is None
        grown_mb = _memory_mb(worker.process.pid) - settled_mb
        assert grown_mb < 8, f"{grown_mb:.1f} MB more after {messages} messages"
        assert answered > messages / 50, "some of them are understood and refused"
    finally:
        context.destroy(0)


def _id(frames: Frames) -> str:
    message = wire.decode(frames)[0]
    return message.worker if isinstance(message, Pong) else ""


def test_some_thousands_of_damaged_messages_leave_no_trace(make_process) -> None:
    _storm(make_process(), 6_000, seed=1)


@pytest.mark.slow
def test_two_hundred_thousand_damaged_messages_leave_no_trace(make_process) -> None:
    _storm(make_process(), 200_000, seed=2)


def test_strangers_that_damage_the_handshake_itself_do_not_get_in_or_disturb(
    make_process, tmp_path: Path
) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.create_missing()
    worker = make_process("--keys", str(keys.path))
    host, port = worker.endpoint.removeprefix("tcp://").split(":")
    rng = random.Random(3)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" * 32
    hello = b"\x05HELLO" + bytes([1, 0]) + b"\0" * 72
    open_ends = []
    for _ in range(400):
        content = bytearray(
            greeting + b"\x04" + struct.pack("B", 200) + hello + rng.randbytes(128)
        )
        for _ in range(rng.randrange(6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        stranger = socket.create_connection((host, int(port)))
        stranger.sendall(bytes(content[: rng.randrange(1, len(content))]))
        if rng.random() < 0.2:
            open_ends.append(stranger)
        else:
            stranger.close()
    context = zmq.Context()
    try:
        pair = keys.pair("robot")
        peer = Peer(worker.endpoint, context, (pair.public, pair.secret, keys.worker_public()))
        peer.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        _expect_service(peer, 1)
        unknown = zmq.curve_keypair()
        intruder = Peer(
            worker.endpoint, context, (*(key.decode() for key in unknown), keys.worker_public())
        )
        # Once refused, its socket has nobody to send to, and would wait for one for ever.
        intruder.socket.setsockopt(zmq.SNDTIMEO, 300)
        intruder.socket.setsockopt(zmq.RCVTIMEO, 300)
        header, data = peer_request(2)
        with contextlib.suppress(zmq.Again):
            intruder.say(header, data)
        with pytest.raises(zmq.Again):
            intruder.hear()
        assert worker.process.poll() is None
        before_s = time.monotonic()
        _expect_service(peer, 3)
        assert time.monotonic() - before_s < 5
    finally:
        context.destroy(0)
        for stranger in open_ends:
            stranger.close()
