"""The other ends for ``bench transport``: a bare ZeroMQ server, openpi's over WebSockets, and
LeRobot's over gRPC.

As a process: ``python -m ros_vla_accel.bench.peers floor|openpi|lerobot``.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import pickle
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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


def lerobot_version() -> str:
    """Empty when LeRobot is not installed with its extra ``async``."""
    if importlib.util.find_spec("lerobot") is None or importlib.util.find_spec("grpc") is None:
        return ""
    return importlib.metadata.version("lerobot")


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


class LerobotClient:
    """What LeRobot's ``robot_client.py`` does with an observation, by LeRobot's own transport."""

    def __init__(self, address: str):
        import grpc
        from lerobot.transport import services_pb2, services_pb2_grpc
        from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks

        self._messages, self._chunks = services_pb2, send_bytes_in_chunks
        self._channel = grpc.insecure_channel(address, grpc_channel_options())
        self._stub = services_pb2_grpc.AsyncInferenceStub(self._channel)
        self._stub.Ready(services_pb2.Empty())

    def ask(self, observation: Observation) -> np.ndarray:
        content = pickle.dumps({**observation.images, "state": observation.state})
        self._stub.SendObservations(self._chunks(content, self._messages.Observation))
        answer = self._stub.GetActions(self._messages.Empty())
        return np.stack([action.numpy() for _, _, action in pickle.loads(answer.data)])

    def close(self) -> None:
        self._channel.close()


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


def serve_lerobot() -> None:
    """LeRobot's transport and the steps of its ``policy_server.py`` around it, without its
    processors: pickled observation in, one tensor per action row, pickled, back."""
    import grpc
    import torch
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import receive_bytes_in_chunks

    class Servicer(services_pb2_grpc.AsyncInferenceServicer):  # type: ignore[misc]
        def __init__(self) -> None:
            self._ending = threading.Event()
            self._newest: queue.Queue[Any] = queue.Queue(maxsize=1)

        def Ready(self, request: Any, context: Any) -> Any:  # noqa: N802 (LeRobot's names)
            return services_pb2.Empty()

        def SendObservations(self, requests: Any, context: Any) -> Any:  # noqa: N802
            self._newest.put(pickle.loads(receive_bytes_in_chunks(requests, None, self._ending)))
            return services_pb2.Empty()

        def GetActions(self, request: Any, context: Any) -> Any:  # noqa: N802
            self._newest.get(timeout=2.0)
            rows = list(torch.zeros(HORIZON, ACTIONS))
            timed = [(0.02 * k, k, row) for k, row in enumerate(rows)]
            return services_pb2.Actions(data=pickle.dumps(timed))

    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    {"floor": serve_floor, "openpi": serve_openpi, "lerobot": serve_lerobot}[sys.argv[1]]()
