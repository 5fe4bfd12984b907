"""The cloud's end of the link: one policy, many robots.

Counterpart of ``client.py``. One thread owns the socket (``router.py``) and answers pings while
others compute (``inference.py``), so that a long inference does not look like a dead machine: one
per batch that the back end (``backend.py``) takes at once. Between them lies the queue
(``batching.py``). Every request that can be read is answered, with a chunk or with a refusal that
says why.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ros_vla_accel.cloud.backend import Backend, InProcess
from ros_vla_accel.cloud.batching import BatchConfig, BatchQueue, Job
from ros_vla_accel.cloud.inference import Asked, BatchReport, Inference, Waiting, refusal
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.messages import (
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    RequestHeader,
    Welcome,
    WireError,
)
from ros_vla_accel.cloud.router import Router, WorkerError
from ros_vla_accel.contracts import Policy

__all__ = ["Worker", "WorkerError", "WorkerStats"]

logger = logging.getLogger(__name__)

_CLOSING = "this worker is ending"


@dataclass(frozen=True)
class WorkerStats:
    """Counts since the start; of the requests that could be read (received), each is in one of
    the next seven, or waits, or is being computed.

    answered: with a chunk. superseded: not computed. expired: not computed, or by no replica in
    time. refused: another policy's hash, or the worker ends. busy: the queue is full. failed:
    tensors that cannot be decoded, or the policy raised. unavailable: no replica runs.
    unauthorized, garbage: messages under a revoked key; messages that are not ours.
    batches: inferences. waiting, robots: in the queue, and that asked within the last second.
    """

    received: int
    answered: int
    superseded: int
    expired: int
    refused: int
    busy: int
    failed: int
    unavailable: int
    unauthorized: int
    garbage: int
    batches: int
    waiting: int
    robots: int


class Worker:
    """Serves a policy at ``tcp://HOST:PORT`` (port ``*``: any free one) until ``stop``.

    Binds at once, so that ``endpoint`` is known; answers after ``start``.
    keys: folder with ``worker.key`` and the robots that may connect. None: plain text for
        anyone, on loopback only, unless insecure_any says otherwise.
    policy: runs in this process, or the back end that runs it elsewhere; who made that closes it.
    on_batch: called in a thread that computes after each inference.
    Raises ValueError for a malformed endpoint, KeyFileError for keys that cannot be used and
    WorkerError when the endpoint cannot be bound.
    """

    def __init__(
        self,
        policy: Policy | Backend,
        bind: str = "tcp://127.0.0.1:*",
        *,
        keys: KeyFolder | None,
        insecure_any: bool = False,
        batch: BatchConfig | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
    ):
        self._backend = policy if isinstance(policy, Backend) else InProcess(policy)
        self.spec = self._backend.spec
        self._identity = self.spec.identity
        self._id = secrets.token_hex(16)
        self._batch = batch if batch is not None else BatchConfig()
        self._on_batch = on_batch
        self._count: Counter[str] = Counter()
        self._inference = Inference(self._backend)

        self._condition = threading.Condition()  # guards what follows
        self._queue: BatchQueue[Asked] = BatchQueue(self._batch)
        self._computing: Counter[bytes] = Counter()  # inferences of each robot
        self._draining = False
        self._stopping = False

        self._router = Router(bind, keys, insecure_any, self._handle)
        self.endpoint = self._router.endpoint
        self._socket_thread = threading.Thread(
            target=self._router.run, name="worker-socket", daemon=True
        )
        self._policy_threads = [
            threading.Thread(target=self._compute, name=f"worker-policy-{lane}", daemon=True)
            for lane in range(self._backend.lanes)
        ]

    def start(self) -> None:
        self._socket_thread.start()
        for thread in self._policy_threads:
            thread.start()

    def stats(self) -> WorkerStats:
        """Any thread."""
        with self._condition:
            waiting, robots = len(self._queue), self._queue.robots(time.monotonic())
        ours = ("received", "superseded", "expired", "refused", "busy", "unavailable", "batches")
        computed = ("answered", "failed", "expired", "unavailable")
        counts = Counter({name: self._count[name] for name in ours})
        counts.update({name: self._inference.count[name] for name in computed})
        return WorkerStats(
            **counts,
            **{name: self._router.count[name] for name in ("unauthorized", "garbage")},
            waiting=waiting,
            robots=robots,
        )

    @property
    def is_alive(self) -> bool:
        """False when it has stopped, or failed in a way that its log tells."""
        return all(t.is_alive() for t in (self._socket_thread, *self._policy_threads))

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Ends in peace: what waits is still computed, for timeout_s at most, and new requests
        are refused, so that robots turn to their own policy at once. What is left is refused.

        False: an inference is still running.
        """
        if self._socket_thread.ident is None:
            self._router.release()
            return True
        with self._condition:
            self._draining = True
            self._condition.notify_all()
            self._condition.wait_for(self._is_idle, timeout_s)
            left = self._queue.clear()
            self._stopping = True
            self._condition.notify_all()
        for job in left:
            self._refuse(job, "closing", _CLOSING)
        for thread in self._policy_threads:
            thread.join(0.05)
        self._router.close()
        self._socket_thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._policy_threads)

    def _is_idle(self) -> bool:
        return not self._queue and not self._computing

    # The socket's thread.

    def _handle(self, client: bytes, message: Message, data: memoryview, now_s: float) -> None:
        if isinstance(message, RequestHeader):
            self._count["received"] += 1
            self._enqueue(client, Asked(message, data, now_s))
        elif not isinstance(message, Hello | Ping):
            raise WireError(f"a client does not send {type(message).__name__}")
        elif self._draining and not self._owes(client):
            self._router.answer(client, Refusal(message.session, 0, "closing", _CLOSING))
        elif problem := self._backend.problem():
            self._router.answer(client, Refusal(message.session, 0, "unavailable", problem))
        elif isinstance(message, Ping):
            self._router.answer(client, Pong(message.session, message.seq, self._id))
        else:
            self._router.answer(client, self._welcome(message.session))

    def _owes(self, client: bytes) -> bool:
        with self._condition:
            return client in self._queue or client in self._computing

    def _welcome(self, session: str) -> Welcome:
        spec = self.spec
        ours = (spec.name, spec.identity, tuple(spec.stages), spec.widths, spec.precision)
        return Welcome(session, self._id, *ours)

    def _enqueue(self, client: bytes, asked: Asked) -> None:
        header, now_s = asked.header, asked.received_s
        job = Job(
            client=client,
            kind=self._inference.kind(client, header),
            deadline_s=now_s + header.remaining_s,
            nbytes=asked.data.nbytes,
            content=asked,
        )
        ours = self._identity
        if header.policy_hash != ours:
            text = (
                f"this worker runs policy '{self.spec.name}' with hash '{ours:.12}', "
                f"request {header.request_id} asks for '{header.policy_hash:.12}'"
            )
            self._refuse(job, "refused", text)
            return
        if problem := self._backend.problem():
            self._refuse(job, "unavailable", problem)
            return
        with self._condition:
            draining = self._draining
            offered = None if draining else self._queue.offer(job, now_s)
            self._condition.notify_all()
        if offered is None:
            self._refuse(job, "closing", _CLOSING)
            return
        for late in offered.expired:
            self._expire(late, now_s)
        if offered.superseded is not None:
            text = f"request {header.request_id} of the same client took its place"
            self._refuse(offered.superseded, "superseded", text)
        if not offered.accepted:
            most = f"{self._batch.max_waiting} robots or {self._batch.max_waiting_bytes} bytes"
            self._refuse(job, "busy", f"{most} are waiting already")

    def _refuse(self, job: Waiting, code: str, text: str) -> None:
        with self._condition:
            self._count["refused" if code == "closing" else code] += 1
        self._router.send(job.client, refusal(job, code, text))

    def _expire(self, job: Waiting, now_s: float) -> None:
        waited_s = now_s - job.content.received_s
        text = f"waited {waited_s:.3f} s of its {job.content.header.remaining_s:.3f} s"
        self._refuse(job, "expired", f"{text}, not computed")

    # The policy's threads.

    def _compute(self) -> None:
        try:
            self._serve_batches()
        finally:
            self._router.close()  # a worker that only answers pings would look alive

    def _serve_batches(self) -> None:
        while (taken := self._next_batch()) is not None:
            jobs, expired = taken
            for job in expired:
                self._expire(job, time.monotonic())
            if not jobs:
                continue
            answers, report = self._inference.run(jobs)
            with self._condition:
                self._count["batches"] += report.size > 0
            for client, frames in answers:
                self._router.send(client, frames)
            with self._condition:
                self._computing -= Counter(job.client for job in jobs)
                self._condition.notify_all()
            if self._on_batch is not None and report.size:
                self._on_batch(report)

    def _next_batch(self) -> tuple[list[Waiting], list[Waiting]] | None:
        with self._condition:
            while not self._stopping:
                now_s = time.monotonic()
                taken = self._queue.take(now_s, self._inference.needed_s)
                if taken.jobs or taken.expired:
                    self._computing.update(job.client for job in taken.jobs)
                    return taken.jobs, taken.expired
                wait_s = taken.again_s - now_s
                self._condition.wait(wait_s if wait_s < threading.TIMEOUT_MAX else None)
            return None
