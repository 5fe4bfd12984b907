"""The other ends for ``bench transport``: a bare ZeroMQ server, and openpi's over WebSockets.

As a process: ``python -m ros_vla_accel.bench.peers floor|openpi``.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import sys
import time
from typing import Any

import numpy as np
import zmq

from ros_vla_accel.bench.emulated_policy import ACTIONS, HORIZON
from ros_vla_accel.contracts import Observation


def openpi_version() -> str:
    """Empty when openpi-client is not installed."""
    if importlib.util.find_spec("openpi_client") is None:
        return ""
    return importlib.metadata.version("openpi-client")


class FloorClient:
    """Frames of an observation through a DEALER without copies, encoding or threads of ours."""

    def __init__(self, address: str):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 5000)
        self._socket.connect(address)

    def ask(self, observation: Observation) -> np.ndarray:
        frames = [*observation.images.values(), observation.state]
        self._socket.send_multipart(frames, copy=False)
        reply = self._socket.recv_multipart()[0]
        return np.frombuffer(reply, np.float32).reshape(HORIZON, ACTIONS)

    def close(self) -> None:
        self._context.destroy(0)


class OpenpiClient:
    """openpi's own client."""

    def __init__(self, address: str):
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        self._client = WebsocketClientPolicy("127.0.0.1", int(address))

    def ask(self, observation: Observation) -> np.ndarray:
        answer = self._client.infer({**observation.images, "state": observation.state})
        return np.asarray(answer["actions"])

    def close(self) -> None:
        self._client._ws.close()


def serve_floor() -> None:
    """A ROUTER that reads no frame and answers a chunk's bytes."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    print(f"ready on tcp://127.0.0.1:{port}", flush=True)
    reply = np.zeros((HORIZON, ACTIONS), np.float32).tobytes()
    while True:
        client = router.recv_multipart(copy=False)[0]
        router.send_multipart([client.bytes, reply])


def serve_openpi() -> None:
    """The loop of openpi's ``websocket_policy_server.py`` (which comes with openpi, not with its
    client) around a policy that takes no time."""
    from openpi_client import msgpack_numpy
    from websockets.asyncio.server import ServerConnection, serve

    actions = np.zeros((HORIZON, ACTIONS), np.float32)

    async def handle(connection: ServerConnection) -> None:
        packer = msgpack_numpy.Packer()
        await connection.send(packer.pack({}))
        async for content in connection:
            started = time.monotonic()
            msgpack_numpy.unpackb(content)
            answer: dict[str, Any] = {"actions": actions}
            answer["server_timing"] = {"infer_ms": (time.monotonic() - started) * 1e3}
            await connection.send(packer.pack(answer))

    async def run() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            print(f"ready on {port}", flush=True)
            await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    {"floor": serve_floor, "openpi": serve_openpi}[sys.argv[1]]()
