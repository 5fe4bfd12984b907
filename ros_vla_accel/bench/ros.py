"""How many messages a node can take: joint states at 500 Hz and two 640x480 cameras at 30 Hz.

Two processes on this machine: one publishes, the other subscribes. Measured are the subscriber's
processor time, what is lost, and how late a joint state reaches its callback. It runs on whatever
middleware the environment chooses, so that standalone and real rclpy can be compared.

``wake_up_p99_ms`` is how late this machine wakes a process that only sleeps, meanwhile: where it
is above the target of joint_states, other processes and not the middleware set the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench.common import Result, percentile, spread

TARGETS = {"joint_states_p99_ms": 2.0, "cpu_percent": 33.0, "lost_ratio": 0.01}
"""Largest values wanted; 33 % of a core is what rclpy 7.1 took on the reference machine."""

_SETTLE_S = 3.0


class BenchError(RuntimeError):
    """The processes did not measure anything."""


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """``python -m module arguments``, its output to be read by ``finish``."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Ends a process of ``nodes.traffic``; its figures. Raises BenchError without any."""
    process.send_signal(signal.SIGTERM)
    try:
        output, _ = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise BenchError("a process did not end within 20 s of SIGTERM") from None
    lines = output.strip().splitlines()
    if process.returncode or not lines:
        raise BenchError(f"a process ended with status {process.returncode} and no figures")
    return dict(json.loads(lines[-1]))


def measure(seconds: float, label: str = "") -> dict[str, Any]:
    """One run of both processes. Raises BenchError if nothing was received."""
    arguments = ["--ros-args", "-r", f"__ns:=/bench_ros_{os.getpid()}"]
    traffic = "ros_vla_accel.nodes.traffic"
    sink = start(traffic, "sink", *arguments)
    source = start(traffic, "source", *arguments)
    try:
        waking_ms = []
        for _ in track(range(round((seconds + _SETTLE_S) * 100)), label, transient=True):
            before = time.monotonic()
            time.sleep(0.01)
            waking_ms.append((time.monotonic() - before - 0.01) * 1e3)
        sent = finish(source)
        received = finish(sink)
    finally:
        for process in (sink, source):
            process.kill()
    if "streams" not in received:
        raise BenchError("the subscriber received nothing; does discovery work on loopback?")
    rows = []
    for name, stream in received["streams"].items():
        first, count = stream["sequence"][0], len(stream["sequence"])
        expected = sent["sent"][name] - first
        rows.append(
            {
                "stream": name,
                "expected": expected,
                "received": count,
                "lost_ratio": 1 - count / expected,
                "p50_ms": percentile(stream["delay_ms"], 50),
                "p99_ms": percentile(stream["delay_ms"], 99),
                "max_ms": max(stream["delay_ms"]),
            }
        )
    return {
        "middleware": received["middleware"],
        "cpu_percent": received["cpu_percent"],
        "publisher_cpu_percent": sent["cpu_percent"],
        "wake_up_p99_ms": percentile(waking_ms, 99),
        "rows": rows,
    }


def run(seconds: float, repeats: int) -> Result:
    """Repeats the measurement; the summary holds medians over the repeats."""
    runs = [measure(seconds, f"run {index + 1} of {repeats}") for index in range(repeats)]
    joints = [one["rows"][0] for one in runs]
    series = {
        "joint_states_p99_ms": [row["p99_ms"] for row in joints],
        "joint_states_p50_ms": [row["p50_ms"] for row in joints],
        "cpu_percent": [one["cpu_percent"] for one in runs],
        "publisher_cpu_percent": [one["publisher_cpu_percent"] for one in runs],
        "wake_up_p99_ms": [one["wake_up_p99_ms"] for one in runs],
        "lost_ratio": [max(row["lost_ratio"] for row in one["rows"]) for one in runs],
    }
    return Result(
        name="ros",
        config={
            "middleware": runs[0]["middleware"],
            "seconds": seconds,
            "repeats": repeats,
            "joint_states_hz": 500,
            "cameras": "2 x 640x480 rgb8 at 30 Hz",
            "targets": TARGETS,
            "spread": {name: spread(values) for name, values in series.items()},
        },
        rows=[{"run": i, **row} for i, one in enumerate(runs) for row in one["rows"]],
        summary={name: spread(values)["median"] for name, values in series.items()},
    )


def show(result: Result) -> None:
    """Prints the medians beside the targets."""
    table = Table(title=f"bench ros ({result.config['middleware']})")
    for column in ("figure", "median", "smallest", "largest", "target"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, values in result.config["spread"].items():
        target = TARGETS.get(name)
        cells = [f"{values[key]:.4g}" for key in ("median", "min", "max")]
        table.add_row(name, *cells, "" if target is None else f"<= {target:g}")
    Console().print(table)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench ros", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run instead of five")
    parser.add_argument("--seconds", type=float, help="length of a run (default 20, quick 8)")
    parser.add_argument("--repeats", type=int, help="number of runs (default 5, quick 1)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    seconds = options.seconds or (8.0 if options.quick else 20.0)
    repeats = options.repeats or (1 if options.quick else 5)
    try:
        result = run(seconds, repeats)
    except BenchError as error:
        print(f"ros-vla-accel bench ros: {error}", file=sys.stderr)
        return 1
    show(result)
    if options.json:
        result.write(options.json)
    return 0
