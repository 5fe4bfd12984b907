"""Many robots on one cloud worker: what batching gains, and whether anybody is forgotten.

Simulated robots ask 5 times a second each, out of step, under CURVE, with features of 64 KB; an
answer is worth something for 0.2 s, until the robot asks again. The worker is a process of its
own, ``ros-vla-accel cloud``, around a policy that takes 10 ms and 0.5 ms per request of a batch.
The robots share one process: no robot's Python holds up the worker's.

``served_per_s`` counts answers in time. Every request must end in exactly one of: a chunk (in
time or late) or a refusal (expired, superseded, busy). ``unfairness`` is the most served robot's
share by the least served one's, over all cells with batching. In the end the whole path is
measured in the running stack, see ``stack.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zmq
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.bench.emulated_policy import STATES, loaded
from ros_vla_accel.bench.processes import Server, ServerError, worker
from ros_vla_accel.bench.stack import ROUTES, stamp_to_row
from ros_vla_accel.cloud.codec import encode_features, request_header
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.messages import Refusal, ReplyHeader
from ros_vla_accel.cloud.wire import decode, encode
from ros_vla_accel.contracts import Features, InferenceRequest

ROBOTS = (1, 8, 32, 128)
PERIOD_S = 0.2
MAX_BATCH = 32
TARGETS = {"unanswered": 0.0, "unfairness": 1.2}
"""Largest values wanted."""
_TRAVEL_S = 0.01
_GRACE_S = 10.0
"""How long an answer is waited for after the last question."""


@dataclass
class Robot:
    """A DEALER that asks on time, whatever became of what it asked before."""

    socket: Any
    asked: dict[int, float] = field(default_factory=dict)  # request -> when, unanswered so far
    served: int = 0


class Fleet:
    """Robots in one thread, asking one worker."""

    def __init__(self, address: str, keys: KeyFolder, count: int):
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._outcomes: Counter[str] = Counter()
        self._latencies_ms: list[float] = []
        pair, server = keys.pair("robot"), keys.worker_public()
        self._robots = []
        for _ in range(count):
            dealer = self._context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
            dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
            dealer.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
            dealer.connect(address)
            self._poller.register(dealer, zmq.POLLIN)
            self._robots.append(Robot(dealer))
        self._by_socket = {robot.socket: robot for robot in self._robots}
        tensors = {
            "context": np.zeros((64, 256), np.float32),
            "state": np.zeros(STATES, np.float32),
        }
        described, self._data = encode_features(Features("backbone", tensors, 1))
        question = InferenceRequest(Features("backbone", tensors, 1), 1, episode_id=1)
        header = request_header(question, described, loaded().spec.identity)
        # CloudClient takes off the round trip that it measures.
        self._header = replace(header, remaining_s=PERIOD_S - _TRAVEL_S, session="load")
        self._sent = 0

    def run(self, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
        """One cell: everyone asks for so long; then what is on its way is waited for."""
        for robot in self._robots:  # a handshake is no part of a round trip
            self._ask(robot)
        self._settle()
        self._outcomes.clear()
        self._latencies_ms.clear()
        self._sent = 0
        for robot in self._robots:
            robot.served = 0
        start_s = time.monotonic()
        due = [(start_s + rng.uniform(0, PERIOD_S), k) for k in range(len(self._robots))]
        heapq.heapify(due)
        lateness_ms = []
        while due:
            now_s = time.monotonic()
            if now_s < due[0][0]:
                self._hear(due[0][0] - now_s)
                continue
            at_s, k = heapq.heappop(due)
            lateness_ms.append((now_s - at_s) * 1e3)
            self._ask(self._robots[k])
            if at_s + PERIOD_S < start_s + seconds:
                heapq.heappush(due, (at_s + PERIOD_S, k))
        self._settle()
        served = [robot.served for robot in self._robots]
        shares = {
            f"{name}_share": self._outcomes[name] / self._sent
            for name in ("late", "expired", "superseded", "busy", "other")
        }
        return {
            "asked": self._sent,
            "served_per_s": sum(served) / seconds,
            "p50_ms": percentile(self._latencies_ms, 50),
            "p99_ms": percentile(self._latencies_ms, 99),
            **shares,
            "unanswered": sum(len(robot.asked) for robot in self._robots),
            "unfairness": max(served) / min(served) if min(served) else float("inf"),
            "asking_late_p99_ms": percentile(lateness_ms, 99),
        }

    def close(self) -> None:
        self._context.destroy(0)

    def _ask(self, robot: Robot) -> None:
        self._sent += 1
        header = replace(self._header, request_id=self._sent)
        robot.asked[self._sent] = time.monotonic()
        robot.socket.send_multipart(encode(header, self._data), copy=False)

    def _settle(self) -> None:
        until_s = time.monotonic() + _GRACE_S
        while any(robot.asked for robot in self._robots) and time.monotonic() < until_s:
            self._hear(0.05)

    def _hear(self, timeout_s: float) -> None:
        for dealer, _ in self._poller.poll(int(timeout_s * 1e3)):
            robot = self._by_socket[dealer]
            with contextlib.suppress(zmq.Again):
                while True:
                    self._note(robot, dealer.recv_multipart(zmq.NOBLOCK))

    def _note(self, robot: Robot, frames: list[bytes]) -> None:
        message, _ = decode(frames)
        if not isinstance(message, ReplyHeader | Refusal):
            raise ServerError(f"the worker sent {message!r:.80}")
        took_s = time.monotonic() - robot.asked.pop(message.request_id)
        if isinstance(message, ReplyHeader):
            self._latencies_ms.append(took_s * 1e3)
            in_time = took_s <= PERIOD_S
            robot.served += in_time
            self._outcomes["served" if in_time else "late"] += 1
        else:
            known = message.code in ("expired", "superseded", "busy")
            self._outcomes[message.code if known else "other"] += 1


def run(seconds: float, repeats: int, robots: tuple[int, ...] = ROBOTS) -> Result:
    """seconds: length of a cell. Raises ServerError."""
    with contextlib.ExitStack() as stack:
        keys = KeyFolder(stack.enter_context(tempfile.TemporaryDirectory()))
        keys.create_missing()
        workers: dict[int, Server] = {}
        for max_batch in (1, MAX_BATCH):
            options = ("--keys", str(keys.path), "--max-batch", str(max_batch))
            workers[max_batch] = worker("loaded", *options)
            stack.callback(workers[max_batch].close)
        rng = np.random.default_rng(0)
        cells = [(k, count, most) for k in range(repeats) for count in robots for most in workers]
        rows = []
        for index, count, max_batch in track(cells, "cells", transient=True):
            fleet = Fleet(workers[max_batch].address, keys, count)
            try:
                figures = fleet.run(seconds, rng)
            finally:
                fleet.close()
            rows.append({"run": index, "robots": count, "max_batch": max_batch, **figures})
    return _result(rows, seconds, repeats)


def _result(rows: list[dict[str, Any]], seconds: float, repeats: int) -> Result:
    batched = [row for row in rows if row["max_batch"] > 1]
    most = max(row["robots"] for row in rows)

    def served(max_batch: int) -> list[float]:
        same = [r for r in rows if (r["robots"], r["max_batch"]) == (most, max_batch)]
        return [row["served_per_s"] for row in same]

    gains = [
        a / b if b else float("inf") for a, b in zip(served(MAX_BATCH), served(1), strict=True)
    ]
    at_32 = [row["p99_ms"] for row in batched if row["robots"] == 32]
    series = {"batching_gain": gains, "p99_ms_32_robots": at_32}
    return Result(
        name="load",
        config={
            "seconds": seconds,
            "repeats": repeats,
            "period_s": PERIOD_S,
            "max_batch": MAX_BATCH,
            "policy": "10 ms + 0.5 ms per request, asleep",
            "transport": "CURVE on loopback, 64 KB of features",
            "targets": TARGETS,
            "unfairness_without_batching": max(
                row["unfairness"] for row in rows if row["max_batch"] == 1
            ),
            "spread": {name: spread(values) for name, values in series.items() if values},
        },
        rows=rows,
        summary={
            "unanswered": float(sum(row["unanswered"] for row in rows)),
            "unfairness": max(row["unfairness"] for row in batched),
            **{
                name: spread(values)["median"] if values else float("nan")
                for name, values in series.items()
            },
        },
    )


def add_stack(result: Result, runs: int) -> None:
    """Adds what the running stack takes. Raises ServerError."""
    rows = stamp_to_row(runs, ("drawer-open", "button-press-topdown"))
    result.rows += rows
    for route in ROUTES:
        for name in ("p50", "p99"):
            values = [row[f"{name}_ms"] for row in rows if row["route"] == route]
            result.summary[f"stamp_to_row_ms_{name}_{route}"] = spread(values)["median"]
    result.summary["stack_real_time_factor"] = min(row["real_time_factor"] for row in rows)


def show(result: Result) -> None:
    """Prints medians over the runs, one line per number of robots and batch."""
    table = Table(title="bench load")
    columns = ("served_per_s", "p50_ms", "p99_ms", "late_share", "expired_share")
    columns += ("superseded_share", "busy_share", "unanswered", "unfairness")
    for column in ("robots", "max_batch", *columns):
        title = column.removesuffix("_share").replace("_", " ")
        table.add_column(title, justify="right", min_width=6)
    rows = [row for row in result.rows if "robots" in row]
    for count, most in dict.fromkeys((r["robots"], r["max_batch"]) for r in rows):
        same = [r for r in rows if (r["robots"], r["max_batch"]) == (count, most)]
        cells = (f"{np.median([row[column] for row in same]):.3g}" for column in columns)
        table.add_row(str(count), str(most), *cells)
    console = Console()
    console.print(table)
    for key, value in result.summary.items():
        wanted = f"  (target <= {TARGETS[key]:g})" if key in TARGETS else ""
        console.print(f"{key}: {value:.3g}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run instead of three")
    parser.add_argument("--seconds", type=float, help="of a cell (default 8, quick 3)")
    parser.add_argument("--repeats", type=int, help="number of runs (default 3, quick 1)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    seconds = options.seconds or (3.0 if options.quick else 8.0)
    repeats = options.repeats or (1 if options.quick else 3)
    try:
        result = run(seconds, repeats)
        add_stack(result, repeats)
    except ServerError as error:
        print(f"ros-vla-accel bench load: {error}", file=sys.stderr)
        return 1
    show(result)
    if options.json:
        result.write(options.json)
    return 0
