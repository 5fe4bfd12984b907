"""Success in closed loop of the fastest contenders of ``bench moeca``, in pairs with the plain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ros_vla_accel.bench.moeca_contenders import Contender
from ros_vla_accel.bench.moeca_report import OWN, front
from ros_vla_accel.experiments.closed_loop import Condition
from ros_vla_accel.experiments.evaluate import REFERENCE, PolicyChoice, evaluate
from ros_vla_accel.experiments.statistics import paired_difference
from ros_vla_accel.sim.env import full_task_name

FIRST_SEED = 20_000
"""Scenes that no training, calibration or other evaluation used."""
PAIRS = 400
"""Fewest pairs of episodes that success can be said to be held after."""
HELD = {"difference": -0.005, "low": -0.03}
"""Smallest difference to the plain sampler's success, and smallest lower bound of it (95 %)."""
TRIES = {
    "moeca": 1,
    "moeca, lazy": 2,
    "moeca, lazy + fewer steps": 1,
    "others": 4,
    "warm start": 2,
}
"""What contenders compete for, to be the fastest of their kind whose success is held, and how
many of them are run in closed loop at most, the fastest first."""

Known = dict[tuple[str, str, str], list[int]]
"""(sampler, family, setting) -> outcomes, of an earlier run."""


def kind(family: str) -> str:
    """Which of ``TRIES`` a family belongs to."""
    return family if family in TRIES else "others"


class ClosedLoops:
    """Runs contenders on the same scenes. tasks: of the policy; episodes: per task."""

    def __init__(
        self, checkpoint: str, tasks: Sequence[str], pairs: int, workers: int, known: Known
    ) -> None:
        self._checkpoint, self._workers, self._known = checkpoint, workers, known
        self._tasks = [full_task_name(task) for task in tasks]
        self._episodes = -(-pairs // len(tasks))

    def outcomes(self, key: str, contender: Contender) -> list[int]:
        """Success of each episode, tasks one after the other."""
        name = key, contender.family, contender.setting
        count = len(self._tasks) * self._episodes
        if len(self._known.get(name, ())) == count:
            return self._known[name]
        arguments = {
            "checkpoint": self._checkpoint,
            "steps": contender.steps,
            "solver": contender.solver,
            "cache": contender.cache,
            "warm_start": contender.warm_start,
        }
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task(f"{key}, {contender.family}, {contender.setting}", total=count)
            found = evaluate(
                PolicyChoice(REFERENCE, arguments, 1),
                self._tasks,
                self._episodes,
                Condition(expert=False),
                FIRST_SEED,
                self._workers,
                lambda done: progress.advance(bar, done),
            )
        return [int(success) for result in found for success in result.successes]

    def run(
        self, key: str, entries: Sequence[Contender], rows: Sequence[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """The plain sampler, and of each kind the fastest of its front, until one holds; a row as
        soon as it is known, since each takes minutes.

        entries and rows: of one sampler, in the same order, the plain one first.
        """
        plain = self.outcomes(key, entries[0])
        yield self._row(key, rows[0], plain, plain)
        for name, tries in TRIES.items():
            own = [r for r in rows if r["family"] != "none" and kind(r["family"]) == name]
            for timed in [row for row in front(own) if row["speedup"] > 1][:tries]:
                contender = entries[rows.index(timed)]
                row = self._row(key, timed, self.outcomes(key, contender), plain)
                yield row
                if row["held"]:
                    break

    def _row(
        self, key: str, timed: dict[str, Any], outcomes: list[int], plain: list[int]
    ) -> dict[str, Any]:
        difference, low, high = paired_difference(
            [bool(s) for s in outcomes], [bool(s) for s in plain]
        )
        held = len(outcomes) >= PAIRS and difference >= HELD["difference"] and low >= HELD["low"]
        return {
            "closed_loop": key,
            "family": timed["family"],
            "setting": timed["setting"],
            "ms": timed["ms"],
            "speedup": timed["speedup"],
            "success": sum(outcomes) / len(outcomes),
            "difference": difference,
            "low": low,
            "high": high,
            "held": held,
            "outcomes": outcomes,
        }


def fastest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summary of closed loops: per sampler the largest speed-up at held success, of MoECa, of
    MoECa where branches are what it reuses, and of all, by name; NaN where none was shown to."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(row["closed_loop"] for row in rows):
        held = [r for r in rows if r["closed_loop"] == key and r["held"] and r["family"] != "none"]
        for name, families in (("speedup", OWN), ("speedup_branches", ("moeca",))):
            own = (r["speedup"] for r in held if r["family"] in families)
            found[f"{name}_{key}"] = max(own, default=float("nan"))
        best = max(held, key=lambda r: r["speedup"], default=None)
        if best is not None:
            found[f"fastest_{key}"] = f"{best['family']}, {best['setting']}"
            found[f"fastest_speedup_{key}"] = best["speedup"]
    return found


def known_of(path: str, identities: dict[str, str]) -> Known:
    """Outcomes of an earlier result: unlike times, they do not depend on the machine.

    identities: objective -> identity of its policy. Raises ValueError for another policy's.
    """
    content = json.loads(Path(path).read_text())
    for objective, identity in identities.items():
        before = content["config"]["identities"].get(objective, identity)
        if before != identity:
            raise ValueError(f"'{path}' is of another {objective} policy; leave out --reuse")
    if content["config"]["first_seed"] != FIRST_SEED:
        raise ValueError(f"'{path}' has other scenes; leave out --reuse")
    return {
        (row["closed_loop"], row["family"], row["setting"]): row["outcomes"]
        for row in content["rows"]
        if "closed_loop" in row
    }
