"""``ros-vla-accel train``: demonstrations, behaviour cloning, DAgger rounds, evaluation."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ros_vla_accel.experiments.collect import collect
from ros_vla_accel.experiments.curves import describe_times, draw_curves
from ros_vla_accel.experiments.evaluation_page import (
    check_page,
    evaluate_checkpoint,
    markdown,
    write_page,
)
from ros_vla_accel.experiments.statistics import write_whole
from ros_vla_accel.experiments.train_config import QUICK, TrainConfig, round_seeds
from ros_vla_accel.experiments.trainer import LOG, Trainer
from ros_vla_accel.policies.config import OBJECTIVES
from ros_vla_accel.sim.env import full_task_name

log = logging.getLogger(__name__)

CONFIG = "config.json"


def run(config: TrainConfig, folder: Path, export: Path | None) -> Path:
    """Trains, resuming what the folder holds. Returns the folder of the final checkpoint.

    Raises ValueError, with the folder as it was, when it holds a run that the settings do not
    continue; and when no episode of a task succeeds.
    """
    for number in range(config.rounds + 1):
        _check_round(config, folder, number)
    trainer = Trainer(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, config.to_dict())
    with Progress() as progress:
        for number in range(config.rounds + 1):
            _collect_round(config, folder, number, progress)
            until = _steps_of_round(config, number)
            if trainer.step < until:
                trainer.load_episodes(folder / "episodes")
                bar = progress.add_task(f"training, round {number}", total=until)
                for step in trainer.train(until):
                    progress.update(bar, completed=step)
                progress.update(bar, completed=until)
            # Again after a resume, too: the process may have ended between state and export.
            trainer.export(folder / "checkpoint")
    if export is not None:
        trainer.export(export)
    return export or folder / "checkpoint"


def finish(config: TrainConfig, folder: Path, checkpoint: Path, episodes: int, page: Path) -> None:
    """Draws the curves beside ``page``, evaluates the checkpoint and writes the table into it.

    episodes: per task; 0 leaves the evaluation out, and the page as it was.
    """
    curves = page.with_name(f"{page.stem}-curves.png")
    rounds = [_steps_of_round(config, number) for number in range(config.rounds)]
    page.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(folder / LOG, rounds, curves)
    if not episodes:
        return
    with Progress() as progress:
        found = evaluate_checkpoint(
            checkpoint, folder, config.tasks, episodes, config.workers, progress
        )
    table = markdown(found)
    times = describe_times(folder / LOG, _recording_s(config, folder))
    write_page(page, f"{times}\n\n![Losses]({curves.name})\n\n{table}")
    log.info("%s\nwritten to %s, curves to %s", table, page, curves)


def _steps_of_round(config: TrainConfig, number: int) -> int:
    """Step at which the training of a round ends."""
    return config.steps * (number + 1) // (config.rounds + 1)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")


def _round_record(config: TrainConfig, number: int, complete: bool) -> dict[str, Any]:
    seeds = {task: [s[0], s[-1]] for task, s in round_seeds(config, number).items()}
    return {"seeds": seeds, "complete": complete}


def _recording_s(config: TrainConfig, folder: Path) -> float:
    """Wall time that the rounds took; NaN when a round was recorded before it was kept."""
    records = [json.loads(_round_path(folder, n).read_text()) for n in range(config.rounds + 1)]
    return float(sum(record.get("seconds", math.nan) for record in records))


def _round_path(folder: Path, number: int) -> Path:
    return folder / f"round-{number}.json"


def _check_round(config: TrainConfig, folder: Path, number: int) -> bool:
    """Whether a round is complete; ValueError when it was recorded for other settings."""
    path = _round_path(folder, number)
    if not path.exists():
        return False
    found, asked = json.loads(path.read_text()), _round_record(config, number, True)
    if found["seeds"] != asked["seeds"]:
        raise ValueError(
            f"round {number} in '{folder}' has seeds {found['seeds']}, the settings ask for "
            f"{asked['seeds']}; keep tasks, episodes and dagger_episodes, or start another run"
        )
    return bool(found["complete"])


def _collect_round(config: TrainConfig, folder: Path, number: int, progress: Progress) -> None:
    """Records a round unless it is complete."""
    if _check_round(config, folder, number):
        return
    path = _round_path(folder, number)
    before_s = json.loads(path.read_text()).get("seconds", 0.0) if path.exists() else 0.0
    started_s = time.monotonic()

    def note(complete: bool) -> None:
        seconds = round(before_s + time.monotonic() - started_s, 1)
        _write_json(path, {**_round_record(config, number, complete), "seconds": seconds})

    note(False)
    seeds = round_seeds(config, number)
    checkpoint = folder / "checkpoint" if number else None
    name = f"DAgger round {number}" if number else "demonstrations"
    bar = progress.add_task(name, total=sum(len(s) for s in seeds.values()))
    for count in collect(folder / "episodes", seeds, checkpoint, config.workers):
        progress.advance(bar, count)
        note(False)
    note(True)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="ros-vla-accel train", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; resumes it")
    parser.add_argument("--export", type=Path, help="where to put the final checkpoint as well")
    parser.add_argument(
        "--save-dataset",
        type=Path,
        metavar="DIR",
        help="where to put the run's episodes as a LeRobot v3.0 data set, in the end",
    )
    parser.add_argument(
        "--no-train", action="store_true", help="only --save-dataset, of the episodes so far"
    )
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
    parser.add_argument(
        "--evaluate", type=int, help="episodes per task of the final evaluation (100), 0: none"
    )
    parser.add_argument(
        "--page", type=Path, help="Markdown page for its table (RUN/evaluation.md)"
    )
    parser.add_argument("--size", help='of the network, e.g. "width=96,heads=3,blocks=6"')
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    saved, page = args.run / CONFIG, args.page or args.run / "evaluation.md"
    episodes = args.evaluate if args.evaluate is not None else 1 if args.quick else 100
    try:
        config = (
            TrainConfig.load(saved) if saved.exists() else QUICK if args.quick else TrainConfig()
        )
        config = replace(config, **_given(args))
        if episodes < 0:
            raise ValueError(f"--evaluate {episodes} must not be negative")
        check_page(page)
    except ValueError as error:
        parser.error(str(error))
    if args.no_train and (args.save_dataset is None or args.export or _given(args)):
        parser.error("--no-train goes with --save-dataset, and with no setting of a training")
    try:
        if args.save_dataset is not None:
            # Here, since it needs pyarrow, and before training, so as not to fail hours later.
            from ros_vla_accel.experiments.lerobot_dataset import check_destination, write_lerobot

            check_destination(args.save_dataset)
        if not args.no_train:
            checkpoint = run(config, args.run, args.export)
            finish(config, args.run, checkpoint, episodes, page)
            log.info("checkpoint: %s", checkpoint)
        if args.save_dataset is not None:
            write_lerobot(args.run / "episodes", args.save_dataset)
            log.info("data set: %s", args.save_dataset)
    except (ValueError, FileExistsError) as error:
        print(f"ros-vla-accel train: {error}", file=sys.stderr)
        return 1
    return 0


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = {f.name for f in fields(TrainConfig)} - {"tasks", "weights", "size"}
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    if args.tasks:
        given["tasks"] = tuple(full_task_name(task) for task in args.tasks)
    if args.weights:
        shares = _pairs("--weights", args.weights, "task=share", float)
        given["weights"] = {
            full_task_name(task).removesuffix("-v3"): share for task, share in shares.items()
        }
    if args.size:
        given["size"] = _pairs("--size", args.size, "name=number", int)
    return given


def _pairs(option: str, text: str, form: str, number: Callable[[str], float]) -> dict[str, float]:
    """``name=number,...`` -> numbers by name; ValueError says which part is wrong."""
    pairs = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            pairs[name.strip()] = number(value)
        except ValueError as error:
            raise ValueError(f"{option}: '{part}' must read {form} ({error})") from error
    return pairs


if __name__ == "__main__":
    raise SystemExit(main())
