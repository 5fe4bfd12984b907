"""``ros-vla-accel train``: demonstrations, behaviour cloning, then DAgger rounds."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ros_vla_accel.experiments.collect import collect
from ros_vla_accel.experiments.train_config import QUICK, TrainConfig, round_seeds
from ros_vla_accel.experiments.trainer import Trainer
from ros_vla_accel.policies.config import OBJECTIVES
from ros_vla_accel.sim.env import full_task_name

log = logging.getLogger(__name__)


def run(config: TrainConfig, folder: Path, export: Path | None) -> Path:
    """Trains, resuming what the folder holds. Returns the folder of the final checkpoint."""
    with Progress() as progress:
        episodes = folder / "episodes"
        trainer: Trainer | None = None
        for number in range(config.rounds + 1):
            _collect_round(config, folder, number, progress)
            trainer = trainer or Trainer(config, folder)
            until = config.steps * (number + 1) // (config.rounds + 1)
            if trainer.step >= until:
                continue
            trainer.load_episodes(episodes)
            bar = progress.add_task(f"training, round {number}", total=until)
            for step in trainer.train(until):
                progress.update(bar, completed=step)
            progress.update(bar, completed=until)
            trainer.export(folder / "checkpoint")
    assert trainer is not None
    if export is not None:
        trainer.export(export)
    return export or folder / "checkpoint"


def _collect_round(config: TrainConfig, folder: Path, number: int, progress: Progress) -> None:
    """Records a round unless it is complete; a round without expert success is an error."""
    done = folder / f"round-{number}.done"
    if done.exists():
        return
    seeds = round_seeds(config, number)
    checkpoint = folder / "checkpoint" if number else None
    name = f"DAgger round {number}" if number else "demonstrations"
    bar = progress.add_task(name, total=sum(len(s) for s in seeds.values()))
    for count in collect(folder / "episodes", seeds, checkpoint, config.workers):
        progress.advance(bar, count)
    done.touch()


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="ros-vla-accel train", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; resumes it")
    parser.add_argument("--export", type=Path, help="where to put the final checkpoint as well")
    parser.add_argument("--tasks", nargs="+", help="all by default")
    parser.add_argument("--objective", choices=OBJECTIVES)
    parser.add_argument("--quick", action="store_true", help="tiny run, to see that it works")
    for name in ("episodes", "rounds", "dagger-episodes", "steps", "batch", "samples"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("workers", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("learning-rate", "ema"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--weights", help='shares of the batches, e.g. "door-open=2,pick-place=1"')
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    saved = args.run / "config.json"
    try:
        config = (
            TrainConfig.load(saved) if saved.exists() else QUICK if args.quick else TrainConfig()
        )
        config = replace(config, **_given(args))
    except ValueError as error:
        parser.error(str(error))
    args.run.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps(asdict(config), indent=1) + "\n")
    checkpoint = run(config, args.run, args.export)
    log.info("checkpoint: %s", checkpoint)
    return 0


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = {f.name for f in fields(TrainConfig)} - {"tasks", "weights", "size"}
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    if args.tasks:
        given["tasks"] = tuple(full_task_name(task) for task in args.tasks)
    if args.weights:
        given["weights"] = _weights(args.weights)
    return given


def _weights(text: str) -> dict[str, float]:
    """``task=share,...`` -> shares by task; ValueError says which part is wrong."""
    weights = {}
    for part in text.split(","):
        task, _, share = part.partition("=")
        try:
            weights[full_task_name(task.strip()).removesuffix("-v3")] = float(share)
        except ValueError as error:
            raise ValueError(f"--weights: '{part}' must read task=share ({error})") from error
    return weights


if __name__ == "__main__":
    raise SystemExit(main())
