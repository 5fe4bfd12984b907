"""The cloud's end of the link: one policy, many robots.

Counterpart of ``client.py``. One thread owns the ROUTER socket and answers pings while another
computes, so that a long inference does not look like a dead machine. Each client has one place in
the queue: its newest request takes it over without losing its turn, so a client that asks more
often is not served more often. Whatever a stranger sends is counted and dropped.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import zmq

from ros_vla_accel.cloud.codec import decode_request, encode_chunk
from ros_vla_accel.cloud.endpoint import Endpoint
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.messages import (
    MAX_DATA_BYTES,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    ReplyHeader,
    RequestHeader,
    SchemaError,
    Welcome,
    WireError,
)
from ros_vla_accel.cloud.wire import Buffer, decode, encode
from ros_vla_accel.cloud.zap import DOMAIN, AllowList, Gatekeeper
from ros_vla_accel.contracts import ActionChunk, Policy

logger = logging.getLogger(__name__)

_LOG_GARBAGE_EVERY_S = 1.0


class WorkerError(RuntimeError):
    """The worker cannot serve at this endpoint; the text says why and what to do."""


@dataclass(frozen=True)
class WorkerStats:
    """Counts since the start.

    received: requests that could be read. answered: with a chunk. superseded, expired: not
    computed. refused: another policy's hash, or too many clients. failed: tensors that cannot be
    decoded, or the policy raised. garbage: messages that are not ours.
    """

    received: int
    answered: int
    superseded: int
    expired: int
    refused: int
    failed: int
    garbage: int


@dataclass(frozen=True)
class _Job:
    client: bytes  # ROUTER's id of the connection
    header: RequestHeader
    data: memoryview
    received_s: float


class Worker:
    """Serves a policy at ``tcp://HOST:PORT`` (port ``*``: any free one) until ``stop``.

    Binds at once, so that ``endpoint`` is known; answers after ``start``.
    keys: folder with ``worker.key`` and the robots that may connect. None: plain text for
        anyone, on loopback only, unless insecure_any says otherwise.
    max_clients bounds the queue.
    Raises ValueError for a malformed endpoint, KeyFileError for keys that cannot be used and
    WorkerError when the endpoint cannot be bound.
    """

    def __init__(
        self,
        policy: Policy,
        bind: str = "tcp://127.0.0.1:*",
        *,
        keys: KeyFolder | None,
        insecure_any: bool = False,
        max_clients: int = 256,
    ):
        self._policy = policy
        self._id = secrets.token_hex(16)
        self._max_clients = max_clients
        self._count: Counter[str] = Counter()
        self._garbage_logged_s = 0.0
        self._episode_id: int | None = None

        self._condition = threading.Condition()  # guards _queue and _stopping
        self._queue: OrderedDict[bytes, _Job] = OrderedDict()
        self._stopping = False
        self._outbox: deque[tuple[bytes, list[Buffer]]] = deque()

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
        self._socket_thread = threading.Thread(
            target=self._serve, name="worker-socket", daemon=True
        )
        self._policy_thread = threading.Thread(
            target=self._compute, name="worker-policy", daemon=True
        )

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

    def start(self) -> None:
        self._socket_thread.start()
        self._policy_thread.start()

    def stats(self) -> WorkerStats:
        return WorkerStats(
            received=self._count["received"],
            answered=self._count["answered"],
            superseded=self._count["superseded"],
            expired=self._count["expired"],
            refused=self._count["refused"],
            failed=self._count["failed"],
            garbage=self._count["garbage"],
        )

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Closes the socket and waits for the inference under way; False if it is not done."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._wake()
        if self._socket_thread.ident is None:
            self._close()
            return True
        self._socket_thread.join(timeout_s)
        self._policy_thread.join(timeout_s)
        return not self._policy_thread.is_alive()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: nobody needs it
            self._wake_send.send(b"\0")

    def _close(self) -> None:
        self._socket.close(0)
        if self._gatekeeper is not None:
            self._gatekeeper.socket.close(0)
        self._context.term()
        self._wake_receive.close()
        self._wake_send.close()

    # The socket's thread.

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_receive, zmq.POLLIN)
        if self._gatekeeper is not None:
            poller.register(self._gatekeeper.socket, zmq.POLLIN)
        try:
            while not self._stopping:
                ready = dict(poller.poll())
                if self._wake_receive.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_receive.recv(4096)
                while self._outbox:
                    self._send(*self._outbox.popleft())
                if self._gatekeeper is not None and self._gatekeeper.socket in ready:
                    self._gatekeeper.answer()
                if self._socket in ready:
                    self._receive()
        finally:
            self._close()

    def _receive(self) -> None:
        """One message, so that replies go out between those of a flood."""
        client, *rest = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        received_s = time.monotonic()
        try:
            message, data = decode([frame.buffer for frame in rest])
            if self._is_allowed(client, rest[0], message, received_s):
                self._handle(client.bytes, message, data, received_s)
        except SchemaError as error:
            self._log_garbage(error, received_s)
            self._send(client.bytes, encode(Refusal("", 0, "schema", str(error))))
        except WireError as error:
            self._log_garbage(error, received_s)

    def _is_allowed(
        self, client: zmq.Frame, frame: zmq.Frame, message: Message, now_s: float
    ) -> bool:
        """A handshake lasts as long as its connection, so a revoked key is noticed here."""
        if self._allowed is None:
            return True
        if self._allowed.name_of(str(frame.get("User-Id")), now_s) is not None:
            return True
        self._count["unauthorized"] += 1
        request_id = message.request_id if isinstance(message, RequestHeader) else 0
        session = getattr(message, "session", "")
        text = "this robot's key was revoked on the worker"
        self._send(client.bytes, encode(Refusal(session, request_id, "unauthorized", text)))
        return False

    def _log_garbage(self, error: WireError, now_s: float) -> None:
        self._count["garbage"] += 1
        if now_s - self._garbage_logged_s >= _LOG_GARBAGE_EVERY_S:
            self._garbage_logged_s = now_s
            logger.warning("message %d dropped: %s", self._count["garbage"], error)

    def _handle(self, client: bytes, message: Message, data: memoryview, now_s: float) -> None:
        if isinstance(message, Ping):
            self._send(client, encode(Pong(message.session, message.seq, self._id)))
        elif isinstance(message, Hello):
            self._send(client, encode(self._welcome(message.session)))
        elif isinstance(message, RequestHeader):
            self._count["received"] += 1
            self._enqueue(_Job(client, message, data, now_s))
        else:
            raise WireError(f"a client does not send {type(message).__name__}")

    def _welcome(self, session: str) -> Welcome:
        spec = self._policy.spec
        return Welcome(
            session, self._id, spec.name, spec.identity, tuple(spec.stages), spec.widths
        )

    def _enqueue(self, job: _Job) -> None:
        ours = self._policy.spec.identity
        if job.header.policy_hash != ours:
            self._count["refused"] += 1
            text = (
                f"this worker runs policy '{self._policy.spec.name}' with hash '{ours:.12}', "
                f"request {job.header.request_id} asks for '{job.header.policy_hash:.12}'"
            )
            self._send(job.client, self._refusal(job, "refused", text))
            return
        with self._condition:
            busy = job.client not in self._queue and len(self._queue) >= self._max_clients
            older = self._queue.get(job.client)
            if not busy:
                self._queue[job.client] = job  # in the place of an older one, if there is one
                self._condition.notify()
        if busy:
            self._count["refused"] += 1
            text = f"{self._max_clients} clients are waiting already"
            self._send(job.client, self._refusal(job, "busy", text))
        elif older is not None:
            self._count["superseded"] += 1
            text = f"request {job.header.request_id} of the same client took its place"
            self._send(older.client, self._refusal(older, "superseded", text))

    def _refusal(self, job: _Job, code: str, text: str) -> list[Buffer]:
        text = text[:1024].encode(errors="replace").decode()  # exceptions may hold any text
        return encode(Refusal(job.header.session, job.header.request_id, code, text))

    def _send(self, client: bytes, frames: list[Buffer]) -> None:
        # ROUTER drops messages to peers that are gone or do not read: it never blocks the others.
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart([client, *frames], zmq.NOBLOCK)

    # The policy's thread.

    def _compute(self) -> None:
        while (job := self._next_job()) is not None:
            self._outbox.append((job.client, self._answer(job)))
            self._wake()

    def _next_job(self) -> _Job | None:
        with self._condition:
            self._condition.wait_for(lambda: self._queue or self._stopping)
            return None if self._stopping else self._queue.popitem(last=False)[1]

    def _answer(self, job: _Job) -> list[Buffer]:
        header, started_s = job.header, time.monotonic()
        queue_s = started_s - job.received_s
        if queue_s > header.remaining_s:
            self._count["expired"] += 1
            text = f"waited {queue_s:.3f} s of its {header.remaining_s:.3f} s, not computed"
            return self._refusal(job, "expired", text)
        try:
            request = decode_request(header, job.data, self._policy.spec.period_s)
        except Exception as error:  # WireError, or no memory: neither may end this thread
            self._count["failed"] += 1
            return self._refusal(job, "bad_request", str(error) or type(error).__name__)
        decoded_s = time.monotonic()
        try:
            if header.episode_id != self._episode_id:
                self._episode_id = header.episode_id
                self._policy.reset(header.episode_id)
            (chunk,) = self._policy.infer([request])
            frames = self._reply(job, chunk, queue_s, decoded_s - started_s, decoded_s)
        except Exception as error:
            self._count["failed"] += 1
            logger.exception("policy failed on request %d", header.request_id)
            return self._refusal(job, "policy", f"{type(error).__name__}: {error}")
        self._count["answered"] += 1
        return frames

    def _reply(
        self, job: _Job, chunk: ActionChunk, queue_s: float, decode_s: float, decoded_s: float
    ) -> list[Buffer]:
        actions = np.asarray(chunk.actions)
        if actions.ndim != 2:
            raise ValueError(f"actions are {actions.shape}; expected (horizon, action_size)")
        reply = ReplyHeader(
            session=job.header.session,
            request_id=job.header.request_id,
            episode_id=job.header.episode_id,
            stamp_ns=job.header.stamp_ns,
            horizon=actions.shape[0],
            action_size=actions.shape[1],
            period_s=float(chunk.period_s),
            activation_bits=int(chunk.activation_bits),
            queue_s=queue_s,
            decode_s=decode_s,
            inference_s=time.monotonic() - decoded_s,
            timings_s={name: float(value) for name, value in chunk.timings_s.items()},
        )
        return encode(reply, encode_chunk(actions))
