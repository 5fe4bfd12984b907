"""RAPID in closed loop against its baselines: latency of a replan, success, load of the link.

The reference policy drives the simulated arm; link and compute are emulated on a virtual clock, so
that the same seeds give the same figures on every machine but for rounding. The full policy takes
782 ms on the edge and 83 ms in the cloud, the light one of the edge (INT4 weights, 8 bits, four
steps) 139 ms, in the proportions of RAPID's paper (arXiv:2603.07949). The link has a round trip,
log-normal jitter, and stands still 5 % of the time, for 0.3 to 0.9 s. Every strategy asks for a
chunk when 8 rows of the one in play are over; RAPID also when the motion is critical.

``latency``: from the wish for a chunk until one comes from an observation at least as new.
``age``: of the observation behind each executed row. The uncertainty rule's threshold is set on
other scenes, so that it sends the same share of its replans to the cloud there as RAPID does.
Success differences are over the same scenes; only ``trigger_overhead`` is measured time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ros_vla_accel.bench import trigger
from ros_vla_accel.bench.common import Result
from ros_vla_accel.bench.partition_report import TARGETS, plot, row_of, show
from ros_vla_accel.experiments import emulated_link
from ros_vla_accel.experiments.offloading import (
    LIGHT_BITS,
    LIGHT_STEPS,
    LIMIT_STEPS,
    Durations,
    Episode,
    Setting,
    Strategy,
    World,
)
from ros_vla_accel.experiments.offloading_strategies import BaselineStrategy, RapidStrategy
from ros_vla_accel.experiments.statistics import paired_difference, ratio_of_means
from ros_vla_accel.partition.baselines import (
    CloudOnly,
    EdgeOnly,
    FixedPeriod,
    UncertaintyThreshold,
)
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.partition.triggers import TriggerConfig
from ros_vla_accel.policies.reference_policy import ReferencePolicy, reference
from ros_vla_accel.precision import Calibration
from ros_vla_accel.resources import existing_path
from ros_vla_accel.sim.env import TASKS, SawyerEnv, full_task_name

FIRST_SEED = 40_000
"""Scenes that no training, calibration or other evaluation used."""
TUNING_SEED = 60_000
CONDITIONS = {
    "clean": Setting(),
    "noise": Setting("noise"),
    "lighting": Setting("brightness"),
    "distractors": Setting(distractors=True),
}
ROUND_TRIPS_MS = (20, 80)
QUICK = ("clean", "noise")
"""Conditions of the quick form."""
SENSOR_HZ = 500


@dataclass(frozen=True)
class Cell:
    """One condition at one round trip, and its scenes."""

    condition: str
    round_trip_ms: int
    setting: Setting
    seeds: range


@dataclass(frozen=True)
class Rules:
    """What the strategies are made of. threshold: of the uncertainty rule."""

    triggers: TriggerConfig
    threshold: float = float("inf")

    def make(self, name: str) -> Strategy:
        """The strategy called so in tables."""
        triggers, critical = self.triggers, RouteConfig(mode="critical")
        if name == "edge only":
            return BaselineStrategy(EdgeOnly, stop_and_think=True, full=True)
        if name == "cloud only":
            return BaselineStrategy(CloudOnly)
        if name == "fixed period":
            return BaselineStrategy(lambda: FixedPeriod(2))
        if name == "uncertainty":
            return BaselineStrategy(lambda: UncertaintyThreshold(self.threshold))
        if name == "RAPID":
            return RapidStrategy(triggers, critical)
        if name == "RAPID, reuse":
            return RapidStrategy(triggers, RouteConfig(mode="critical", reuse=True))
        if name == "RAPID, auto":
            return RapidStrategy(triggers, RouteConfig(mode="auto"))
        raise ValueError(f"strategy '{name}' is unknown")


EVERYWHERE = ("cloud only", "uncertainty", "RAPID", "RAPID, reuse", "RAPID, auto")
SHORT_ONLY = ("edge only", "fixed period")
"""At the shortest round trip alone: the first does not use the link, the second is no goal's."""


def strategies_of(cell: Cell) -> tuple[str, ...]:
    return (*SHORT_ONLY, *EVERYWHERE) if cell.round_trip_ms == ROUND_TRIPS_MS[0] else EVERYWHERE


@lru_cache(maxsize=1)
def _policies() -> tuple[ReferencePolicy, ReferencePolicy]:
    """Full and light, once per process."""
    light = reference(quantize="w4ax", steps=LIGHT_STEPS, threads=1)
    return reference(threads=1, source="cloud"), light


def _run(rules: Rules, name: str, task: str, setting: Setting, seeds: range) -> list[Episode]:
    """Episodes of one strategy; in a worker."""
    env, strategy = SawyerEnv(task), rules.make(name)
    found = [World(env, *_policies(), setting, seed).run(strategy) for seed in seeds]
    env.close()
    return found


Job = tuple[Rules, str, str, Setting, range]


def run_jobs(
    jobs: Sequence[Job], workers: int, progress: Callable[[int], None]
) -> list[list[Episode]]:
    """Each job's episodes, in order; the same with any number of workers."""
    if workers == 1:
        found = []
        for job in jobs:
            found.append(_run(*job))
            progress(len(job[-1]))
        return found
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        pending = [pool.submit(_run, *job) for job in jobs]
        for job, future in zip(jobs, pending, strict=True):
            future.result()
            progress(len(job[-1]))
        return [future.result() for future in pending]


def tuned(
    rules: Rules,
    tasks: Sequence[str],
    seeds: range,
    workers: int,
    progress: Callable[[int], None],
) -> tuple[float, float]:
    """Threshold of the uncertainty rule, and the share of RAPID's replans that ask the cloud."""
    names = ("RAPID", "uncertainty")
    jobs = [(rules, name, task, Setting(), seeds) for task in tasks for name in names]
    found = run_jobs(jobs, workers, progress)
    rapid = [e for episodes in found[0::2] for e in episodes]
    drawn = [d for episodes in found[1::2] for e in episodes for d in e.disagreements]
    share = sum(e.cloud_calls for e in rapid) / max(1, sum(e.replans for e in rapid))
    return float(np.quantile(drawn, max(0.0, 1.0 - share))), share


Found = dict[tuple[str, int, str], list[Episode]]
"""(condition, round trip in ms, strategy) -> episodes, all over the same scenes."""


def _of(found: Found, name: str, condition: str = "", trip: int = 0) -> list[Episode]:
    """A strategy's episodes, of one condition or round trip or of all."""
    return [
        episode
        for (where, at, who), episodes in found.items()
        if who == name and condition in ("", where) and trip in (0, at)
        for episode in episodes
    ]


def summarize(found: Found) -> dict[str, float]:
    """What the goals are about; ``_low``: lower end of the 95 % interval."""
    rapid, reuse, cloud = (_of(found, name) for name in ("RAPID", "RAPID, reuse", "cloud only"))
    trips = sorted({trip for _, trip, _ in found})
    summary: dict[str, float] = {}

    def put(key: str, value: float, low: float, *_: float) -> None:
        summary[key], summary[f"{key}_low"] = value, low

    def latencies(name: str, condition: str = "", trip: int = 0) -> list[list[float]]:
        return [episode.latency_s for episode in _of(found, name, condition, trip)]

    for trip in (0, *trips):
        pair = latencies("RAPID", "noise", trip), latencies("uncertainty", "noise", trip)
        suffix = f"_{trip}_ms" if trip else ""
        put(f"speedup_over_entropy_noise{suffix}", *ratio_of_means(*pair))
    # Edge only takes as long at any round trip: the least favourable one for RAPID counts.
    edge_s = _mean(latencies("edge only"))
    for trip in trips:
        summary[f"speedup_over_edge_only_{trip}_ms"] = edge_s / _mean(latencies("RAPID", "", trip))
    slow = max(trips, key=lambda trip: _mean(latencies("RAPID", "", trip)))
    ours = latencies("RAPID", "", slow)
    put("speedup_over_edge_only", *ratio_of_means(ours, [[edge_s]] * len(ours)))
    for key, a, b in (
        ("success_minus_cloud_only", rapid, cloud),
        ("reuse_success_minus_rapid", reuse, rapid),
        ("reuse_success_minus_cloud_only", reuse, cloud),
    ):
        put(key, *paired_difference([e.success for e in a], [e.success for e in b]))
    both = [(a, b) for a, b in zip(reuse, rapid, strict=True) if a.success and b.success]
    counts = [[float(a.replans)] for a, _ in both], [[float(b.replans)] for _, b in both]
    more, low, _ = ratio_of_means(*counts)
    put("replans_saved", 1 - 1 / more, 1 - 1 / low)
    summary["pairs"] = float(len(rapid))
    summary["age_over_best_other"] = max(_age_over_best_other(found, trip) for trip in trips)
    return summary


def _mean(values: Sequence[Sequence[float]]) -> float:
    return float(np.mean([value for part in values for value in part]))


def _age_over_best_other(found: Found, trip: int) -> float:
    """RAPID's mean age of observations over that of the best baseline."""
    ages = {
        name: _mean([episode.age_s for episode in _of(found, name, trip=trip)])
        for name in dict.fromkeys(who for _, at, who in found if at == trip)
    }
    others = [age for name, age in ages.items() if not name.startswith("RAPID")]
    return ages["RAPID"] / min(others)


def trigger_overhead(seconds: float) -> float:
    """Share of a core that triggers and dispatcher take at the sensor's rate."""
    samples = trigger.moving(round(seconds * SENSOR_HZ), SENSOR_HZ, np.random.default_rng(0))
    return float(trigger.measure(samples)["us_per_sample"]) * SENSOR_HZ * 1e-6


def cells_of(conditions: Sequence[str], trips: Sequence[int], per_task: int) -> list[Cell]:
    """Each cell has scenes of its own."""
    cells = []
    for condition in conditions:
        for trip in trips:
            setting = replace(CONDITIONS[condition], round_trip_s=trip * 1e-3)
            first = FIRST_SEED + len(cells) * per_task
            cells.append(Cell(condition, trip, setting, range(first, first + per_task)))
    return cells


def run(
    calibration: str,
    tasks: Sequence[str],
    cells: Sequence[Cell],
    tuning_scenes: int,
    workers: int,
) -> Result:
    """tuning_scenes: per task, for the uncertainty rule's threshold."""
    path = existing_path(calibration, "config/calibration")
    loaded = Calibration.load(path)
    loaded.check(_policies()[0].spec.identity)
    rules = Rules(TriggerConfig().calibrated(loaded.triggers))
    tuning = range(TUNING_SEED, TUNING_SEED + tuning_scenes)
    overhead = trigger_overhead(10.0)
    total = 2 * len(tasks) * tuning_scenes + sum(
        len(strategies_of(cell)) * len(tasks) * len(cell.seeds) for cell in cells
    )
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("episodes", total=total)

        def advance(count: int) -> None:
            progress.advance(bar, count)

        threshold, share = tuned(rules, tasks, tuning, workers, advance)
        rules = Rules(rules.triggers, threshold)
        keys, jobs = [], []
        for cell in cells:
            for task in tasks:
                for name in strategies_of(cell):
                    keys.append((cell.condition, cell.round_trip_ms, name))
                    jobs.append((rules, name, task, cell.setting, cell.seeds))
        found: Found = {}
        for key, episodes in zip(keys, run_jobs(jobs, workers, advance), strict=True):
            found.setdefault(key, []).extend(episodes)
    config = {
        "calibration": Path(path).name,
        "identity": loaded.identity,
        "triggers": asdict(rules.triggers),
        "durations": asdict(Durations()),
        "link": {
            "round_trips_ms": sorted({cell.round_trip_ms for cell in cells}),
            "jitter": emulated_link.JITTER,
            "stall_share": emulated_link.STALL_SHARE,
            "stall_s": emulated_link.STALL_S,
        },
        "light_policy": {"quantize": "w4ax", "bits": LIGHT_BITS, "steps": LIGHT_STEPS},
        "tasks": list(tasks),
        "scenes_per_task": len(cells[0].seeds),
        "limit_s": LIMIT_STEPS * 0.05,
        "first_seed": FIRST_SEED,
        "uncertainty": {"threshold": threshold, "share": share, "seeds": list(tuning)},
        "targets": TARGETS,
    }
    rows = [row_of(*key, found[key], found.get((*key[:2], "cloud only"))) for key in found]
    return Result("partition", config, rows, summarize(found) | {"trigger_overhead": overhead})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench partition", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few scenes: minutes, no intervals")
    parser.add_argument("--tasks", nargs="+", help="all by default, quick: two")
    parser.add_argument("--scenes", type=int, help="per task and cell (default 7, quick 2)")
    parser.add_argument("--calibration", default="reference", help="YAML, or a name in config/")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    parser.add_argument("--plot", metavar="PNG", help="draw the latencies of replans")
    options = parser.parse_args(argv)
    for name in ("scenes", "workers"):
        if (getattr(options, name) or 1) < 1:
            parser.error(f"--{name} must be at least 1")
    default = ["drawer-open", "pick-place"] if options.quick else list(TASKS)
    conditions = QUICK if options.quick else tuple(CONDITIONS)
    result = run(
        options.calibration,
        [full_task_name(task) for task in options.tasks or default],
        cells_of(conditions, ROUND_TRIPS_MS, options.scenes or (2 if options.quick else 7)),
        1 if options.quick else 3,
        options.workers,
    )
    show(result)
    if options.json:
        result.write(options.json)
    if options.plot:
        plot(result, options.plot)
    return 0
