"""What the way to the cloud worker costs: an observation there, a chunk back, nothing computed.

Two RGB images and a state of 14 go out raw, (50, 14) float32 come back; client and server are
processes of their own on this machine. ``ours`` is the whole path of a robot: encoding, client
thread, worker with its queue and threads, decoding; ``curve`` is the same under CURVE. ``floor``
is a bare pyzmq ROUTER and DEALER that look at nothing. ``openpi`` is openpi-client over
WebSockets, ``lerobot`` the transport of LeRobot's policy server over gRPC, where they are
installed. All are asked in turn within each run, and ratios are of medians of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.bench.emulated_policy import STATES, noop
from ros_vla_accel.bench.peers import (
    FloorClient,
    LerobotClient,
    OpenpiClient,
    lerobot_version,
    openpi_version,
)
from ros_vla_accel.bench.processes import Server, ServerError, worker
from ros_vla_accel.cloud.client import CloudClient
from ros_vla_accel.cloud.codec import encode_observation, request_header
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation
from ros_vla_accel.partition.link import LinkState

SIZES = {"224": (224, 224), "480": (480, 640)}
"""Label -> height and width of both images, pixels."""
TARGETS = {"over_floor_224": ("<=", 1.5), "over_floor_480": ("<=", 1.5)}
TARGETS["best_peer_over_ours_480"] = (">=", 2.0)


class OurClient:
    """What partition_manager and the encoding thread do."""

    def __init__(self, address: str, keys: KeyFolder | None):
        self._hash = noop().spec.identity
        self._answers: queue.SimpleQueue[ActionChunk] = queue.SimpleQueue()
        self._client = CloudClient(address, self._hash, self._answers.put, keys=keys)
        self._request_id = 0
        until_s = time.monotonic() + 10
        while self._client.health is not LinkState.HEALTHY:
            if time.monotonic() > until_s:
                raise ServerError(f"no link to {address}: {self._client.stats().reason}")
            time.sleep(0.01)

    def ask(self, observation: Observation) -> np.ndarray:
        self._request_id += 1
        tensors, data = encode_observation(observation)
        request = InferenceRequest(observation, self._request_id, episode_id=1)
        self._client.submit(request_header(request, tensors, self._hash), data, 5.0)
        try:
            return self._answers.get(timeout=5.0).actions
        except queue.Empty:
            raise ServerError(f"no answer: {self._client.stats().reason}") from None

    def close(self) -> None:
        self._client.close()


def _observation(height: int, width: int, rng: np.random.Generator) -> Observation:
    shape = (height, width, 3)
    images = {name: rng.integers(0, 256, shape, np.uint8) for name in ("front", "wrist")}
    return Observation(images, np.zeros(STATES, np.float32), "open the drawer", 1)


def measure(ask: Callable[[Observation], np.ndarray], observation: Observation, count: int) -> Any:
    """Round trips in ms of ``count`` questions, after some that are not counted."""
    for _ in range(5):
        ask(observation)
    round_trips = []
    for _ in range(count):
        started = time.perf_counter()
        ask(observation)
        round_trips.append((time.perf_counter() - started) * 1e3)
    return {
        "asked": count,
        "p50_ms": percentile(round_trips, 50),
        "p95_ms": percentile(round_trips, 95),
        "min_ms": min(round_trips),
    }


def run(count: int, repeats: int) -> Result:
    """count: questions per transport, size and run. Raises ServerError."""
    with contextlib.ExitStack() as stack:
        keys = KeyFolder(stack.enter_context(tempfile.TemporaryDirectory()))
        keys.create_missing()

        def start(server: Server) -> str:
            stack.callback(server.close)
            return server.address

        plain = start(worker("noop", "--insecure"))
        secured = start(worker("noop", "--keys", str(keys.path)))
        clients: dict[str, Any] = {
            "floor": FloorClient(start(Server("ros_vla_accel.bench.peers", "floor"))),
            "ours": OurClient(plain, None),
            "curve": OurClient(secured, keys),
        }
        if openpi_version():
            clients["openpi"] = OpenpiClient(start(Server("ros_vla_accel.bench.peers", "openpi")))
        if lerobot_version():
            address = start(Server("ros_vla_accel.bench.peers", "lerobot"))
            clients["lerobot"] = LerobotClient(address)
        for client in clients.values():
            stack.callback(client.close)
        rng = np.random.default_rng(0)
        observations = {label: _observation(*size, rng) for label, size in SIZES.items()}
        rows = []
        for index in track(range(repeats), "runs", transient=True):
            names = list(clients)
            # Another order each time, so that none always comes after the same one.
            for name in rng.permutation(names):
                for label, observation in observations.items():
                    figures = measure(clients[name].ask, observation, count)
                    rows.append({"run": index, "transport": str(name), "size": label, **figures})
    return _result(rows, count, repeats)


def _result(rows: list[dict[str, Any]], count: int, repeats: int) -> Result:
    def ratios(above: str, below: str, size: str) -> list[float]:
        p50 = {(r["run"], r["transport"]): r["p50_ms"] for r in rows if r["size"] == size}
        return [p50[k, above] / p50[k, below] for k in range(repeats) if (k, above) in p50]

    peers = [ratios(peer, "ours", "480") for peer in ("openpi", "lerobot")]
    series = {
        "over_floor_224": ratios("ours", "floor", "224"),
        "over_floor_480": ratios("ours", "floor", "480"),
        "curve_over_plain_480": ratios("curve", "ours", "480"),
        "best_peer_over_ours_480": [min(both) for both in zip(*filter(None, peers), strict=True)],
    }
    return Result(
        name="transport",
        config={
            "questions": count,
            "repeats": repeats,
            "targets": TARGETS,
            "openpi_client": openpi_version() or "absent: pip install openpi-client",
            "lerobot": lerobot_version() or "absent: pip install lerobot[async]",
            "spread": {name: spread(values) for name, values in series.items() if values},
        },
        rows=rows,
        summary={
            name: spread(values)["median"] if values else float("nan")
            for name, values in series.items()
        },
    )


def show(result: Result) -> None:
    """Prints medians over the runs, and the ratios beside their targets."""
    table = Table(title="bench transport: round trip, ms")
    for column in ("transport", "size", "p50", "p95", "smallest"):
        table.add_column(column, justify="left" if column == "transport" else "right")
    for name, size in dict.fromkeys((r["transport"], r["size"]) for r in result.rows):
        same = [r for r in result.rows if (r["transport"], r["size"]) == (name, size)]
        cells = [f"{np.median([r[c] for r in same]):.2f}" for c in ("p50_ms", "p95_ms", "min_ms")]
        table.add_row(name, size, *cells)
    console = Console()
    console.print(table)
    for peer in ("openpi_client", "lerobot"):
        console.print(f"{peer}: {result.config[peer]}")
    for key, value in result.summary.items():
        between = result.config["spread"].get(key)
        text = f" ({between['min']:.2f} to {between['max']:.2f})" if between else ""
        sign, target = TARGETS.get(key, ("", None))
        wanted = f"  target {sign} {target:g}" if target is not None else ""
        console.print(f"{key}: {value:.2f}{text}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench transport", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three short runs instead of nine")
    parser.add_argument("--questions", type=int, help="per run (default 100, quick 40)")
    parser.add_argument("--repeats", type=int, help="number of runs (default 9, quick 3)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    questions = options.questions or (40 if options.quick else 100)
    repeats = options.repeats or (3 if options.quick else 9)
    try:
        result = run(questions, repeats)
    except ServerError as error:
        print(f"ros-vla-accel bench transport: {error}", file=sys.stderr)
        return 1
    show(result)
    if options.json:
        result.write(options.json)
    return 0
