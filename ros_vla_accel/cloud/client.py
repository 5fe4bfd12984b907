"""The robot's end of the link: asks the worker for action chunks and watches over the link.

Counterpart of ``worker.py``. One thread owns the socket, because a ZeroMQ socket must not be
shared; callers leave requests in a one-slot mailbox and never wait. The robot is safe without
this class ever saying anything: an answer that does not come in time is simply not there.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ros_vla_accel.cloud.codec import decode_chunk
from ros_vla_accel.cloud.connection import Connection
from ros_vla_accel.cloud.endpoint import Endpoint
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.link_snapshot import LinkSnapshot
from ros_vla_accel.cloud.messages import (
    LEAVE_CODES,
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
from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.partition.link import LinkConfig, LinkEstimate, LinkHealth, LinkState

logger = logging.getLogger(__name__)

_IDLE_POLL_S = 1.0


@dataclass(frozen=True)
class _InFlight:
    header: RequestHeader
    sent_s: float
    deadline_s: float
    sent_bytes: int


class CloudClient:
    """Asks one worker, one request in flight, the newest wins.

    endpoint: the worker's ``tcp://HOST:PORT``.
    policy_hash: the only policy whose worker is welcome; empty accepts any (each request names
        its policy anyway, and the worker refuses another).
    on_reply: called in this client's thread with each chunk that arrives before its deadline;
        it should be quick.
    keys: folder with ``robot.key`` and ``worker.pub``, whose absence is a reason in ``stats`` and
        no exception, because the edge carries on without a cloud. None: plain text, which
        anyone between could change; only to this machine, unless insecure_any says otherwise.
    link: timing constants.
    Raises ValueError when the endpoint is malformed, or not of this machine without keys.
    """

    def __init__(
        self,
        endpoint: str,
        policy_hash: str,
        on_reply: Callable[[ActionChunk], None],
        *,
        keys: KeyFolder | None,
        insecure_any: bool = False,
        link: LinkConfig | None = None,
    ):
        self._endpoint = Endpoint.parse(endpoint)
        if "*" in endpoint:
            raise ValueError(f"endpoint is '{endpoint}'; * is for workers, a client names one")
        if keys is None and not self._endpoint.is_loopback and not insecure_any:
            raise ValueError(
                f"{endpoint} is another machine, and without keys anyone between could move the "
                "arm: make keys with `ros-vla-accel keys new robot`, or say insecure-any"
            )
        self._policy_hash = policy_hash
        self._on_reply = on_reply
        self._config = link if link is not None else LinkConfig()
        self._session = secrets.token_hex(16)
        self._lock = threading.Lock()  # of the mailbox, the counts and the estimate
        self._mailbox: tuple[RequestHeader, Buffer, float] | None = None
        self._count: Counter[str] = Counter()
        self._estimate = LinkEstimate()
        self._health = LinkHealth(self._config, seed=secrets.randbits(32))
        self._error = ""
        self._closing = False

        self._welcome: Welcome | None = None
        self._hello_sent_s: float | None = None  # on the present connection
        self._in_flight: _InFlight | None = None
        self._reopen = False  # the socket, at the next probe
        self._next_ping_s = 0.0
        self._ping_seq = 0
        self._pings: dict[int, float] = {}  # seq -> when it was sent

        self._connection = Connection(self._endpoint, keys)
        self._thread = threading.Thread(target=self._run, name="cloud-client", daemon=True)
        self._thread.start()

    @property
    def health(self) -> LinkState:
        return self._health.state

    def submit(self, header: RequestHeader, data: Buffer, timeout_s: float) -> bool:
        """Takes a request whose answer is awaited for timeout_s; returns at once, any thread.

        A request that is still waiting or in flight is forgotten. data must not change until the
        answer or the timeout. False: the link is down, nothing was taken.
        """
        if self._closing or self._health.state < LinkState.SUSPECT:
            return False
        with self._lock:
            self._count["superseded"] += self._mailbox is not None
            self._count["requests"] += 1
            self._mailbox = (header, data, time.monotonic() + timeout_s)
        self._connection.wake()
        return True

    def stats(self) -> LinkSnapshot:
        """A consistent snapshot; any thread."""
        welcome = self._welcome
        with self._lock:
            return LinkSnapshot(
                health=self._health.state,
                endpoint=str(self._endpoint),
                round_trip_ms=1e3 * self._estimate.round_trip_s,
                round_trip_p95_ms=1e3 * self._estimate.round_trip_p95_s,
                bandwidth_mbps=1e-6 * self._estimate.bandwidth_bit_s,
                worker_p50_ms=1e3 * self._estimate.worker_p50_s,
                requests=self._count["requests"],
                replies=self._count["replies"],
                expired=self._count["expired"],
                rejected=self._count["rejected"],
                superseded=self._count["superseded"],
                dropped=self._count["dropped"],
                bytes_sent=self._count["bytes_sent"],
                bytes_received=self._count["bytes_received"],
                reason=self._health.reason or self._error,
                worker="" if welcome is None else _described(welcome),
            )

    def close(self) -> None:
        """Ends the thread and forgets what is in flight. Safe to call twice."""
        self._closing = True
        self._connection.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=0.4)  # longer only when on_reply hangs

    # Everything below runs in the client's thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                self._advance(time.monotonic())
                if problem := self._connection.problem():
                    self._on_problem(problem, time.monotonic())
                connected = self._connection.wait(self._wait_ms(time.monotonic()))
                while not self._closing and (frames := self._connection.receive()) is not None:
                    self._take(frames, time.monotonic())
                if connected and self._hello_sent_s is None:
                    self._probe(time.monotonic())
        except Exception:
            logger.exception("client of %s failed; no cloud until the restart", self._endpoint)
            self._health.refused(time.monotonic(), "the cloud client failed, see its log")
        finally:
            self._closing = True
            self._connection.close()

    def _wait_ms(self, now_s: float) -> int:
        """Until the next thing to do, if nothing arrives before."""
        times = [now_s + _IDLE_POLL_S, self._health.next_change_s]
        if self._health.state >= LinkState.SUSPECT:
            times.append(self._next_ping_s)
        if self._in_flight is not None:
            times.append(self._in_flight.deadline_s)
        return max(0, int(1e3 * (min(times) - now_s)) + 1)

    def _advance(self, now_s: float) -> None:
        self._health.tick(now_s)
        if self._in_flight is not None and now_s >= self._in_flight.deadline_s:
            self._expire(now_s, "no answer before the deadline")
        self._start_request(now_s)
        if self._health.state >= LinkState.SUSPECT and now_s >= self._next_ping_s:
            self._ping(now_s)
        if self._health.state is LinkState.DOWN:
            self._welcome = None
            self._pings.clear()
            if self._health.probe_due(now_s):
                if self._hello_sent_s is not None or self._reopen:
                    self._reopen = False
                    self._connection.reopen()
                self._probe(now_s)

    def _on_problem(self, problem: str, now_s: float) -> None:
        """No connection under the present keys: others may be there at the next probe."""
        self._note_once(problem)
        self._reopen = True
        self._hello_sent_s = None
        self._connection.await_writable(False)
        self._health.refused(now_s, problem)

    def _note_once(self, reason: str) -> None:
        if reason != self._error:  # not at each probe
            logger.warning("%s", reason)
        self._error = reason

    def _probe(self, now_s: float) -> None:
        self._health.probe_sent(now_s)
        sent = self._send(encode(Hello(self._session)))
        self._hello_sent_s = now_s if sent else None
        self._connection.await_writable(not sent)  # a connection is worth a probe at once

    def _ping(self, now_s: float) -> None:
        self._next_ping_s = now_s + self._config.ping_interval_s
        self._ping_seq += 1
        self._pings[self._ping_seq] = now_s
        if not self._send(encode(Ping(self._session, self._ping_seq))):
            self._lose(now_s)

    def _start_request(self, now_s: float) -> None:
        with self._lock:
            waiting, self._mailbox = self._mailbox, None
            if waiting is not None:
                self._count["superseded"] += self._in_flight is not None
        if waiting is None:
            return
        self._in_flight = None
        header, data, deadline_s = waiting
        if now_s >= deadline_s or self._health.state < LinkState.SUSPECT:
            self._expire(now_s, "link went down before it was sent")
            return
        try:
            remaining_s = max(0.0, deadline_s - now_s - self._travel_s())
            header = replace(header, session=self._session, remaining_s=remaining_s)
            frames = encode(header, data)
        except WireError as error:
            self._reject(f"request {header.request_id} cannot be sent: {error}")
            return
        sent_bytes = sum(memoryview(frame).nbytes for frame in frames)
        self._in_flight = _InFlight(header, now_s, deadline_s, sent_bytes)
        if not self._send(frames):
            self._lose(now_s)

    def _travel_s(self) -> float:
        """An answer that leaves the worker later than this before the deadline comes too late."""
        travel_s = self._estimate.round_trip_s
        return travel_s if travel_s > 0 else 0.0

    def _send(self, frames: list[Buffer]) -> bool:
        """False when there is no connection."""
        sent_bytes = self._connection.send(frames)
        with self._lock:
            self._count["bytes_sent"] += sent_bytes or 0
        return sent_bytes is not None

    def _lose(self, now_s: float) -> None:
        self._hello_sent_s = None  # the socket reconnects by itself, and that one is a new one
        self._health.lost(now_s, f"connection to {self._endpoint} is closed")

    def _take(self, frames: list[bytes], now_s: float) -> None:
        with self._lock:
            self._count["bytes_received"] += sum(map(len, frames))
        try:
            self._handle(*decode(frames), now_s)
        except SchemaError as error:
            self._reject(str(error))
            self._health.refused(now_s, str(error))
        except WireError as error:
            self._reject(f"unreadable message from {self._endpoint}: {error}")

    def _handle(self, message: Message, data: memoryview, now_s: float) -> None:
        if isinstance(message, Hello | Ping | RequestHeader):
            raise WireError(f"a worker does not send {type(message).__name__}")
        if message.session != self._session:
            self._drop()
            return
        if isinstance(message, Welcome):
            self._on_welcome(message, now_s)
            return
        if isinstance(message, Refusal) and message.code in LEAVE_CODES:
            self._note_once(message.text)
            self._health.refused(now_s, message.text)
            return
        if self._welcome is None:
            return
        self._health.heard(now_s)
        if isinstance(message, Pong):
            self._on_pong(message, self._welcome, now_s)
        elif isinstance(message, ReplyHeader):
            self._on_reply_header(message, data, now_s)
        else:
            self._on_refusal(message, now_s)

    def _on_welcome(self, welcome: Welcome, now_s: float) -> None:
        if self._welcome is not None or self._hello_sent_s is None:
            return
        if self._policy_hash and welcome.policy_hash != self._policy_hash:
            reason = (
                f"worker at {self._endpoint} runs policy '{welcome.policy}' with hash "
                f"'{welcome.policy_hash:.12}', this robot needs '{self._policy_hash:.12}'"
            )
            self._note_once(reason)
            self._reject(reason)
            self._health.refused(now_s, reason)
            return
        with self._lock:
            self._estimate.add_round_trip(now_s - self._hello_sent_s)
        self._welcome = welcome
        self._error = ""
        self._next_ping_s = now_s + self._config.ping_interval_s
        self._health.accepted(now_s)
        logger.info("cloud worker at %s: policy %s", self._endpoint, _described(welcome))

    def _on_pong(self, pong: Pong, welcome: Welcome, now_s: float) -> None:
        if pong.worker != welcome.worker:
            self._hello_sent_s = None
            self._health.lost(now_s, f"worker at {self._endpoint} was restarted")
            return
        sent_s = self._pings.get(pong.seq)
        if sent_s is not None:
            with self._lock:
                self._estimate.add_round_trip(now_s - sent_s)
            self._health.returned(now_s, now_s - sent_s)
        self._pings = {seq: sent for seq, sent in self._pings.items() if seq > pong.seq}

    def _on_reply_header(self, header: ReplyHeader, data: memoryview, now_s: float) -> None:
        asked = self._in_flight
        if asked is None or header.request_id != asked.header.request_id:
            self._drop()
            return
        if now_s >= asked.deadline_s:
            self._expire(now_s, "answer after the deadline")
            self._drop()
            return
        if (header.stamp_ns, header.episode_id) != (
            asked.header.stamp_ns,
            asked.header.episode_id,
        ):
            raise WireError(f"reply {header.request_id} echoes another stamp or episode")
        chunk = decode_chunk(header, data)
        self._in_flight = None
        total_s = now_s - asked.sent_s
        chunk.timings_s["round_trip"] = total_s
        worker_s = header.queue_s + header.decode_s + header.inference_s
        with self._lock:
            self._count["replies"] += 1
            self._estimate.add_request(total_s, worker_s, header.inference_s, asked.sent_bytes)
        self._health.answered(now_s)
        try:
            self._on_reply(chunk)
        except Exception:
            logger.exception("on_reply failed for request %d", header.request_id)

    def _on_refusal(self, refusal: Refusal, now_s: float) -> None:
        asked = self._in_flight
        if asked is None or refusal.request_id != asked.header.request_id:
            return  # already forgotten; the code "superseded" always ends here
        if refusal.code == "expired":
            self._expire(now_s, refusal.text)
            return
        self._in_flight = None
        self._reject(refusal.text)
        # A foreign policy stays foreign: no use in asking twice more before the link is held.
        self._health.unanswered(now_s, refusal.text, certain=refusal.code == "refused")

    def _expire(self, now_s: float, reason: str) -> None:
        self._in_flight = None
        with self._lock:
            self._count["expired"] += 1
        self._health.unanswered(now_s, reason)

    def _reject(self, reason: str) -> None:
        self._error = reason
        with self._lock:
            self._count["rejected"] += 1

    def _drop(self) -> None:
        with self._lock:
            self._count["dropped"] += 1


def _described(welcome: Welcome) -> str:
    precision = f" ({welcome.precision})" if welcome.precision else ""
    return f"{welcome.policy}{precision}"
