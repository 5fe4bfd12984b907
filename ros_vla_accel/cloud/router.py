"""The worker's ROUTER socket: who may speak, what is readable, and what goes back."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections import Counter, deque
from collections.abc import Callable

import zmq

from ros_vla_accel.cloud.endpoint import Endpoint
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.messages import (
    MAX_DATA_BYTES,
    Message,
    Refusal,
    RequestHeader,
    SchemaError,
    WireError,
)
from ros_vla_accel.cloud.wire import Buffer, decode, encode
from ros_vla_accel.cloud.zap import DOMAIN, AllowList, Gatekeeper

logger = logging.getLogger(__name__)

_LOG_GARBAGE_EVERY_S = 1.0
_BURST = 16
"""Messages taken before replies go out again, so that a flood does not hold them up."""
_FLUSH_MS = 500
_READ_S = 0.2
"""What a robot received but has not read is thrown away by its libzmq when the connection closes
(as its socket is ZMQ_IMMEDIATE), so connections stay open for so long after an answer."""

Handler = Callable[[bytes, Message, memoryview, float], None]


class WorkerError(RuntimeError):
    """The worker cannot serve at this endpoint; the text says why and what to do."""


class Router:
    """Binds at once; ``run`` serves in the thread that calls it until ``close``.

    handle(client, message, data, received_s): called in that thread with what can be read and
        may be said; it must not wait. It may raise WireError.
    Arguments and errors are those of ``Worker``.
    """

    def __init__(self, bind: str, keys: KeyFolder | None, insecure_any: bool, handle: Handler):
        self._handle = handle
        self._closing = False
        self._garbage_logged_s = 0.0
        self._sent_s = -math.inf
        self._outbox: deque[tuple[bytes, list[Buffer]]] = deque()
        self.count: Counter[str] = Counter()
        self._allowed = None if keys is None else AllowList(keys)
        self._gatekeeper: Gatekeeper | None = None
        self._context = zmq.Context()
        try:
            self._socket = self._bind(Endpoint.parse(bind), keys, insecure_any)
        except BaseException:
            self._context.destroy(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)

    def _bind(
        self, endpoint: Endpoint, keys: KeyFolder | None, insecure_any: bool
    ) -> zmq.Socket[bytes]:
        if keys is None and not endpoint.is_loopback:
            if not insecure_any:
                raise WorkerError(
                    f"{endpoint} is reachable from other machines, and without keys traffic is "
                    "plain text: use CURVE keys (`ros-vla-accel keys new worker`), bind to "
                    "tcp://127.0.0.1:PORT, or allow it with --insecure-any on a network that you "
                    "trust"
                )
            logger.warning("%s: anyone who reaches it can read and use this worker", endpoint)
        router = self._context.socket(zmq.ROUTER)
        if keys is not None and self._allowed is not None:
            pair = keys.pair("worker")
            self._gatekeeper = Gatekeeper(self._context, self._allowed)
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
            router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
            # Without it, libzmq lets everyone in whenever the gatekeeper is not there.
            router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.MAXMSGSIZE, MAX_DATA_BYTES)
        router.setsockopt(zmq.RCVHWM, 16)  # per client; each may be a whole observation
        router.setsockopt(zmq.HEARTBEAT_IVL, 5000)  # forgets peers that vanished without a word
        router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        router.setsockopt(zmq.HANDSHAKE_IVL, 5000)  # and those that never finish their handshake
        router.setsockopt(zmq.IPV6, int(endpoint.is_ipv6))
        try:
            router.bind(str(endpoint))
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise WorkerError(
                    f"port {endpoint.port} is in use, so {endpoint} cannot be bound: stop the "
                    "other worker or choose another port"
                ) from error
            raise WorkerError(f"{endpoint} cannot be bound: {error}") from error
        return router

    def send(self, client: bytes, frames: list[Buffer]) -> None:
        """From any thread; sent by the one that runs."""
        self._outbox.append((client, frames))
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: nobody needs it
            self._wake_send.send(b"\0")

    def answer(self, client: bytes, message: Message) -> None:
        """From ``handle``: at once."""
        self._send(client, encode(message))

    def close(self) -> None:
        """Ends ``run``, from any thread; what was given to ``send`` before still goes out."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._wake_send.send(b"\0")

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_receive, zmq.POLLIN)
        if self._gatekeeper is not None:
            poller.register(self._gatekeeper.socket, zmq.POLLIN)
        try:
            while not self._closing:
                ready = dict(poller.poll())
                if self._wake_receive.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_receive.recv(4096)
                self._flush()
                if self._gatekeeper is not None and self._gatekeeper.socket in ready:
                    self._gatekeeper.answer()
                if self._socket in ready:
                    self._receive_burst()
            self._flush()
            time.sleep(max(0.0, self._sent_s + _READ_S - time.monotonic()))
        finally:
            self.release()

    def release(self) -> None:
        """Frees the sockets of a router that does not run (any more)."""
        self._socket.close(_FLUSH_MS)
        if self._gatekeeper is not None:
            self._gatekeeper.socket.close(0)
        self._context.term()
        self._wake_receive.close()
        self._wake_send.close()

    def _flush(self) -> None:
        while self._outbox:
            self._send(*self._outbox.popleft())
            self._sent_s = time.monotonic()

    def _receive_burst(self) -> None:
        for _ in range(_BURST):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._receive(frames[0].bytes, frames[1:], time.monotonic())
            if self._outbox:
                return

    def _receive(self, client: bytes, frames: list[zmq.Frame], now_s: float) -> None:
        try:
            message, data = decode([frame.buffer for frame in frames])
            if self._is_allowed(client, frames[0], message, now_s):
                self._handle(client, message, data, now_s)
        except SchemaError as error:
            self._log_garbage(error, now_s)
            self.answer(client, Refusal("", 0, "schema", str(error)))
        except WireError as error:
            self._log_garbage(error, now_s)
        except Exception:  # ours to mend, but no stranger's message may end the worker
            self.count["garbage"] += 1
            logger.exception("message of %s", [len(frame) for frame in frames[:8]])

    def _is_allowed(self, client: bytes, frame: zmq.Frame, message: Message, now_s: float) -> bool:
        """A handshake lasts as long as its connection, so a revoked key is noticed here."""
        if self._allowed is None:
            return True
        if self._allowed.name_of(str(frame.get("User-Id")), now_s) is not None:
            return True
        self.count["unauthorized"] += 1
        request_id = message.request_id if isinstance(message, RequestHeader) else 0
        text = "this robot's key was revoked on the worker"
        self.answer(client, Refusal(message.session, request_id, "unauthorized", text))
        return False

    def _log_garbage(self, error: WireError, now_s: float) -> None:
        self.count["garbage"] += 1
        if now_s - self._garbage_logged_s >= _LOG_GARBAGE_EVERY_S:
            self._garbage_logged_s = now_s
            logger.warning("message %d dropped: %s", self.count["garbage"], error)

    def _send(self, client: bytes, frames: list[Buffer]) -> None:
        # ROUTER drops messages to peers that are gone or do not read: it never blocks the others.
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart([client, *frames], zmq.NOBLOCK)
