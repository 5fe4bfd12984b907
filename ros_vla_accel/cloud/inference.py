"""A batch of requests through a policy, and back as frames: a chunk or a refusal for each."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from ros_vla_accel.cloud.backend import Backend, BackendError
from ros_vla_accel.cloud.batching import Job
from ros_vla_accel.cloud.codec import decode_request, encode_chunk
from ros_vla_accel.cloud.messages import Refusal, ReplyHeader, RequestHeader
from ros_vla_accel.cloud.wire import Buffer, encode
from ros_vla_accel.contracts import ActionChunk, InferenceRequest
from ros_vla_accel.partition.latency import LatencyWindow

logger = logging.getLogger(__name__)

_ALONE = 1024
"""Robots remembered for a request on which the policy raised."""


@dataclass(frozen=True)
class Asked:
    """A request as it came in. received_s: steady clock."""

    header: RequestHeader
    data: memoryview
    received_s: float


Waiting = Job[Asked]


@dataclass(frozen=True)
class BatchReport:
    """What one batch cost: s in the policy, and s that each answered request had waited."""

    size: int
    inference_s: float
    queue_s: list[float]


def refusal(job: Waiting, code: str, text: str) -> list[Buffer]:
    """Frames of a refusal of a request."""
    text = text[:1024].encode(errors="replace").decode()  # exceptions may hold any text
    header = job.content.header
    return encode(Refusal(header.session, header.request_id, code, text))


class Inference:
    """Runs batches on a backend, from as many threads as that has lanes.

    A request on which the policy raises must not take those of other robots with it: the batch is
    then computed one by one, and the robot that caused it alone until it is served again.
    """

    def __init__(self, backend: Backend):
        self._backend = backend
        self._durations = LatencyWindow(32)
        self._lock = threading.Lock()  # guards what follows, for writers
        self._alone: dict[bytes, None] = {}
        self.count: Counter[str] = Counter()

    @property
    def needed_s(self) -> float:
        """What nine of ten of the last inferences did not exceed, s; 0 before the first."""
        usual_s = self._durations.quantile_s(0.9)
        return usual_s if usual_s > 0 else 0.0

    def kind(self, client: bytes, header: RequestHeader) -> Hashable:
        """What requests must have in common to share an inference: width, cut, cameras."""
        widths = self._backend.spec.widths
        bits = header.activation_bits
        width = min((w for w in widths if w >= bits), default=max(widths, default=bits))
        return (width, header.cut, client if client in self._alone else b"")

    def run(self, jobs: list[Waiting]) -> tuple[list[tuple[bytes, list[Buffer]]], BatchReport]:
        """(client, frames) for each job, in any order."""
        out: list[tuple[bytes, list[Buffer]]] = []
        started_s = time.monotonic()
        ready: list[tuple[Waiting, InferenceRequest]] = []
        for job in jobs:
            try:
                period_s = self._backend.spec.period_s
                request = decode_request(job.content.header, job.content.data, period_s)
            except Exception as error:  # WireError, or no memory: neither may end this thread
                self._note("failed")
                text = str(error) or type(error).__name__
                out.append((job.client, refusal(job, "bad_request", text)))
            else:
                ready.append((job, request))
        decoded_s = time.monotonic()
        answers = self._compute(ready) if ready else []
        inference_s = time.monotonic() - decoded_s
        queue_s = []
        for (job, _), answer in zip(ready, answers, strict=True):
            waited_s = started_s - job.content.received_s
            durations = (waited_s, decoded_s - started_s, inference_s)
            frames = self._frames(job, answer, *durations)
            out.append((job.client, frames))
            queue_s.append(waited_s)
        return out, BatchReport(len(ready), inference_s, queue_s)

    def _note(self, outcome: str) -> None:
        with self._lock:
            self.count[outcome] += 1

    def _compute(
        self, ready: list[tuple[Waiting, InferenceRequest]]
    ) -> list[ActionChunk | Exception]:
        started_s = time.monotonic()
        robots = [job.client for job, _ in ready]
        try:
            requests = [request for _, request in ready]
            chunks = self._backend.infer(robots, requests, max(job.deadline_s for job, _ in ready))
            if len(chunks) != len(ready):
                raise ValueError(f"{len(chunks)} chunks for {len(ready)} requests")
        except Exception as error:
            if isinstance(error, BackendError) and error.code != "policy":
                return [error] * len(ready)
            if len(ready) == 1:
                self._set_apart(ready[0][0])
                return [error]
            return [answer for one in ready for answer in self._compute([one])]
        self._durations.add(time.monotonic() - started_s)
        if self._alone:
            with self._lock:
                for robot in robots:
                    self._alone.pop(robot, None)
        return list(chunks)

    def _set_apart(self, job: Waiting) -> None:
        if job.client not in self._alone:  # once, not at the rate at which it asks
            logger.exception("policy failed on request %d", job.content.header.request_id)
        with self._lock:
            self._alone[job.client] = None
            if len(self._alone) > _ALONE:
                del self._alone[next(iter(self._alone))]

    def _frames(
        self,
        job: Waiting,
        answer: ActionChunk | Exception,
        queue_s: float,
        decode_s: float,
        inference_s: float,
    ) -> list[Buffer]:
        try:
            if isinstance(answer, Exception):
                raise answer
            frames = _reply(job.content.header, answer, queue_s, decode_s, inference_s)
        except BackendError as error:
            self._note("failed" if error.code == "policy" else error.code)
            return refusal(job, error.code, str(error))
        except Exception as error:
            self._note("failed")
            if error is not answer:
                logger.error("policy's chunk cannot be sent: %s", error)
            return refusal(job, "policy", f"{type(error).__name__}: {error}")
        self._note("answered")
        return frames


def _reply(
    header: RequestHeader, chunk: ActionChunk, queue_s: float, decode_s: float, inference_s: float
) -> list[Buffer]:
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2:
        raise ValueError(f"actions are {actions.shape}; expected (horizon, action_size)")
    reply = ReplyHeader(
        session=header.session,
        request_id=header.request_id,
        episode_id=header.episode_id,
        stamp_ns=header.stamp_ns,
        horizon=actions.shape[0],
        action_size=actions.shape[1],
        period_s=float(chunk.period_s),
        activation_bits=int(chunk.activation_bits),
        queue_s=queue_s,
        decode_s=decode_s,
        inference_s=inference_s,
        timings_s={name: float(value) for name, value in chunk.timings_s.items()},
    )
    return encode(reply, encode_chunk(actions))
