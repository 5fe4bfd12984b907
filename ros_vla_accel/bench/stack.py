"""The whole path in the running stack: from a camera's stamp to the row that answers it.

``ros-vla-accel demo`` runs as it is, simulator, nodes and worker as processes of their own, and
is recorded; each chunk's first executed row is then dated by ``executor_state``, against the stamp
of the observation that it answers. Both are on the robot's clock, which is the simulator's: where
``real_time_factor`` is below 1 the machine did not keep up, and times would be longer in reality.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ros_vla_accel.bench.common import percentile
from ros_vla_accel.bench.processes import ServerError
from ros_vla_accel.contracts import ExecutorCode
from ros_vla_accel.replay.bag import Bag

ROUTES = ("edge", "cloud")
_LONGEST_S = 300.0


def stamp_to_row(runs: int, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One row per run and route; raises ServerError when a demo fails."""
    return [
        {"run": run, "route": route, **_demo(route, tasks)}
        for run in range(runs)
        for route in ROUTES
    ]


def _demo(route: str, tasks: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "ros_vla_accel.cli", "demo", "--headless"]
        command += ["--route", route, "--tasks", *tasks, "--record", str(folder / "bag")]
        command += ["--json", str(folder / "demo.json"), "--image", str(folder / "demo.png")]
        command += ["--log-dir", str(folder / "logs"), "--keys", str(folder / "keys")]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_S,
        )
        if not (folder / "demo.json").exists():
            raise ServerError(f"demo --route {route} failed: {done.stdout[-500:]}")
        numbers = json.loads((folder / "demo.json").read_text())["summary"]
        with Bag(folder / "bag") as bag:
            topic = next(name for name in bag.topics if name.endswith("/executor_state"))
            states = [bag.decode(c, data) for c, _, data in bag.messages([topic])]
        late_ms = first_rows_ms(states, route)
    return {
        "chunks": len(late_ms),
        "p50_ms": percentile(late_ms, 50),
        "p99_ms": percentile(late_ms, 99),
        "starved_ticks": numbers["starved_ticks"],
        "ticks": numbers["ticks"],
        "real_time_factor": numbers["real_time_factor"],
    }


def first_rows_ms(states: Iterable[Any], source: str) -> list[float]:
    """From observation to the control tick that executed a first row of its chunk, ms, for each
    chunk of the source. states: ``ExecutorState`` messages in order."""
    found, seen = [], 0
    for state in states:
        if state.state != ExecutorCode.PLAYING or state.request_id == seen:
            continue
        seen = state.request_id
        if state.source == source:
            now, then = state.header.stamp, state.chunk_stamp
            found.append(1e3 * (now.sec - then.sec) + 1e-6 * (now.nanosec - then.nanosec))
    return found
