"""What RAPID's triggers and DyQ-VLA's controller cost per joint sample, and how exact they stay;
and what the process costs in which they run.

The samples are made before the clock starts: seven joints that move, hold still, have no effort
sensors, or whose driver sends each measurement five times. Every sample is timed.
``us_per_sample`` (= ``partition_us``: triggers and dispatcher) and ``quantization_us`` (increments
by forward kinematics, controller and look-ahead) are processor time, which other processes on the
machine do not lengthen, at 500 Hz; ``p99_us`` is elapsed time of the triggers.
``quantization_state_kb`` is what the controller keeps at the end, without the robot's description.
``window_error`` is the largest difference of mean and deviation to a direct computation over the
same window, relative to the deviation.

``trigger_overhead`` is the share of a core that ``us_per_sample`` makes at 500 Hz;
``edge_control_core_share`` that of the whole composed process (``edge_control.py``), messages of
this machine's middleware included.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ros_vla_accel.bench import edge_control, precision_cost
from ros_vla_accel.bench.common import Result, percentile, spread
from ros_vla_accel.bench.processes import ServerError
from ros_vla_accel.bench.ros import BenchError
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers
from ros_vla_accel.partition.window import SlidingWindow
from ros_vla_accel.precision import PrecisionConfig

JOINTS = 7
RATES_HZ = (100, 500, 1000)
TARGETS = {
    "us_per_sample": 20.0,
    "partition_us": 20.0,
    "quantization_us": 20.0,
    "quantization_state_kb": 64.0,
    "window_error": 1e-6,
    "trigger_overhead": 0.02,
    "edge_control_core_share": 0.25,
}
"""Largest values wanted."""


def _samples(rate_hz: int, *fields: np.ndarray) -> list[JointSample]:
    rows = enumerate(zip(*fields, strict=True))
    # Arrays of their own, as a reader makes them: a view would keep the whole motion.
    return [JointSample(round(k / rate_hz * 1e9), *(x.copy() for x in row)) for k, row in rows]


def moving(count: int, rate_hz: int, rng: np.random.Generator) -> list[JointSample]:
    """Joints that swing at their own frequencies and are touched once a second."""
    t = np.arange(count) / rate_hz
    phase = t[:, None] * rng.uniform(0.5, 4.0, JOINTS) + rng.uniform(0, 6, JOINTS)
    position, velocity = np.sin(phase) / 4, np.cos(phase) / 4
    touched = (t[:, None] % 1.0 < 0.02) * rng.uniform(0, 8, JOINTS)
    effort = 5 * np.sin(phase) + touched + rng.normal(0, 0.05, (count, JOINTS))
    velocity += rng.normal(0, 0.001, velocity.shape)
    return _samples(rate_hz, position, velocity, effort)


def still(count: int, rate_hz: int, rng: np.random.Generator) -> list[JointSample]:
    """An arm at rest, with the noise of its sensors."""
    shape = (count, JOINTS)
    return _samples(
        rate_hz, np.zeros(shape), rng.normal(0, 0.001, shape), rng.normal(0, 0.05, shape)
    )


def without_effort(count: int, rate_hz: int, rng: np.random.Generator) -> list[JointSample]:
    """``moving`` without effort."""
    samples = moving(count, rate_hz, rng)
    return [JointSample(s.stamp_ns, s.position, s.velocity) for s in samples]


def repeated(count: int, rate_hz: int, rng: np.random.Generator) -> list[JointSample]:
    """``moving`` with each measurement sent five times."""
    samples = moving(count, rate_hz, rng)
    for k, s in enumerate(samples):
        of = samples[k - k % 5]
        samples[k] = JointSample(s.stamp_ns, of.position, of.velocity, of.effort)
    return samples


MOTIONS: tuple[Callable[..., list[JointSample]], ...] = (moving, still, without_effort, repeated)


def measure(samples: list[JointSample]) -> dict[str, Any]:
    """One pass over the samples."""
    triggers, dispatcher = Triggers(), Dispatcher()
    elapsed_ns, critical = [], 0
    clock = time.perf_counter_ns
    started_ns = time.thread_time_ns()
    for sample in samples:
        before_ns = clock()
        signals = triggers.update(sample)
        dispatcher.update(signals)
        elapsed_ns.append(clock() - before_ns)
        critical += signals.critical
    cpu_ns = time.thread_time_ns() - started_ns
    precision = precision_cost.controller()
    return {
        "samples": len(samples),
        "us_per_sample": cpu_ns / len(samples) / 1e3,
        "quantization_us": precision_cost.microseconds(precision, samples),
        "quantization_state_kb": precision_cost.kept_bytes(precision) / 1024,
        "motion_source": precision.source,
        "p50_us": percentile(elapsed_ns, 50) / 1e3,
        "p99_us": percentile(elapsed_ns, 99) / 1e3,
        "critical_share": critical / len(samples),
        "preemptions": dispatcher.preemptions,
    }


def window_error(count: int, rng: np.random.Generator) -> float:
    """Largest relative error of the sliding statistics over ``count`` values at 1 kHz."""
    values = 100.0 + rng.lognormal(0.0, 1.0, count)
    window, span, worst = SlidingWindow(1.0), 1000, 0.0
    for index, value in enumerate(values.tolist()):
        window.push(index * 1_000_000, value)
        if index % 997 == 996 and index >= span:
            last = values[index + 1 - span : index + 1]
            mean, deviation = window.mean_std()
            error = max(abs(mean - last.mean()), abs(deviation - last.std()))
            worst = max(worst, error / last.std())
    return float(worst)


def run(seconds: float, repeats: int) -> Result:
    """seconds: of recorded time per motion and rate; repeats of everything, interleaved."""
    cases = [
        (motion.__name__, rate_hz, motion(round(seconds * rate_hz), rate_hz, rng))
        for rng in [np.random.default_rng(0)]
        for motion in MOTIONS
        for rate_hz in RATES_HZ
    ]
    rows = [
        {"run": index, "motion": name, "rate_hz": rate_hz, **measure(samples)}
        for index in track(range(repeats), "runs", transient=True)
        for name, rate_hz, samples in cases
    ]
    runs = [edge_control.measure(seconds, "edge_control") for _ in range(repeats)]
    share = spread([one["core_share"] for one in runs])
    at_500 = [row for row in rows if row["motion"] == "moving" and row["rate_hz"] == 500]
    cost = spread([row["us_per_sample"] for row in at_500])
    quantization = spread([row["quantization_us"] for row in at_500])
    return Result(
        name="trigger",
        config={
            "seconds": seconds,
            "repeats": repeats,
            "joints": JOINTS,
            "targets": TARGETS,
            "trigger": asdict(TriggerConfig()),
            "precision": asdict(PrecisionConfig()),
            "motion_source": rows[0]["motion_source"],
            "spread": {
                "us_per_sample": cost,
                "quantization_us": quantization,
                "edge_control_core_share": share,
            },
            "edge_control": runs,
        },
        rows=rows,
        summary={
            "us_per_sample": cost["median"],
            "partition_us": cost["median"],
            "quantization_us": quantization["median"],
            "worst_quantization_us": max(row["quantization_us"] for row in rows),
            "quantization_state_kb": max(row["quantization_state_kb"] for row in rows),
            "worst_us_per_sample": max(row["us_per_sample"] for row in rows),
            "p50_us": spread([row["p50_us"] for row in at_500])["median"],
            "p99_us": spread([row["p99_us"] for row in at_500])["median"],
            "core_percent_at_500_hz": cost["median"] * 500 / 1e4,
            "trigger_overhead": cost["median"] * 500 / 1e6,
            "edge_control_core_share": share["median"],
            "window_error": window_error(round(seconds * 50_000), np.random.default_rng(1)),
        },
    )


def show(result: Result) -> None:
    """Prints one line per motion and rate, and what the targets are about."""
    table = Table(title="bench trigger")
    columns = ("us_per_sample", "quantization_us", "p50_us", "p99_us", "critical_share")
    for column in ("motion", "rate_hz", *columns):
        table.add_column(column, justify="left" if column == "motion" else "right")
    for name, rate_hz in dict.fromkeys((r["motion"], r["rate_hz"]) for r in result.rows):
        same = [r for r in result.rows if (r["motion"], r["rate_hz"]) == (name, rate_hz)]
        cells = (f"{np.median([row[column] for row in same]):.3g}" for column in columns)
        table.add_row(name, str(rate_hz), *cells)
    console = Console()
    console.print(table)
    for key, value in result.summary.items():
        wanted = f"  (target <= {TARGETS[key]:g})" if key in TARGETS else ""
        console.print(f"{key}: {value:.3g}{wanted}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench trigger", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run instead of five")
    parser.add_argument("--seconds", type=float, help="of motion (default 20, quick 4)")
    parser.add_argument("--repeats", type=int, help="number of runs (default 5, quick 1)")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    options = parser.parse_args(argv)
    seconds = options.seconds or (4.0 if options.quick else 20.0)
    repeats = options.repeats or (1 if options.quick else 5)
    try:
        result = run(seconds, repeats)
    except (BenchError, ServerError) as error:
        print(f"ros-vla-accel bench trigger: {error}", file=sys.stderr)
        return 1
    show(result)
    if options.json:
        result.write(options.json)
    return 0
