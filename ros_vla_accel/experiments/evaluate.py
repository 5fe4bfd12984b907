"""``ros-vla-accel eval``: success of a policy in closed loop, in process, on a virtual clock."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ros_vla_accel.contracts import ACTIVATION_BITS, Policy, executed_width
from ros_vla_accel.experiments.closed_loop import Condition, TaskResult, mean, run_task
from ros_vla_accel.experiments.perturbation import PERTURBATIONS
from ros_vla_accel.experiments.statistics import check_writable, percentile, write_json
from ros_vla_accel.experiments.width import WidthChoice
from ros_vla_accel.policies import PolicyLoadError, load_policy
from ros_vla_accel.policies.instructions import WORDINGS
from ros_vla_accel.policies.loader import policy_arguments
from ros_vla_accel.sim.env import TASKS, full_task_name

REFERENCE = "ros_vla_accel.policies:reference"
SEEDS_PER_BATCH = 10
"""Episodes that a worker runs at a time: few enough that none waits long for the others."""


@dataclass(frozen=True)
class PolicyChoice:
    """How each process loads the policy. threads: torch threads of a process, or its default."""

    factory: str = REFERENCE
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None

    def load(self) -> Policy:
        """Raises PolicyLoadError or ValueError."""
        policy = load_policy(self.factory, self.arguments)
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return policy


_loaded: Policy | None = None


def _start_worker(choice: PolicyChoice) -> None:
    global _loaded
    _loaded = choice.load()


def _run_batch(task: str, seeds: Sequence[int], condition: Condition) -> TaskResult:
    assert _loaded is not None
    return run_task(_loaded, task, seeds, condition)


def evaluate(
    choice: PolicyChoice | Policy,
    tasks: Sequence[str],
    episodes: int,
    condition: Condition | None = None,
    first_seed: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> list[TaskResult]:
    """Runs policy and expert on the seeds ``first_seed`` onward of every task.

    With several workers, each loads the policy for itself; the results are the same.
    progress: called with the number of episodes that ended.
    Raises ValueError when the policy does not fit the simulator, a task is named twice, or a
    policy that is loaded already is to be shared.
    """
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks {list(tasks)} must each be named once")
    if workers > 1 and not isinstance(choice, PolicyChoice):
        raise ValueError(f"{workers} workers need a PolicyChoice: each loads the policy itself")
    condition = condition or Condition()
    seeds = range(first_seed, first_seed + episodes)
    if workers == 1:
        policy = choice.load() if isinstance(choice, PolicyChoice) else choice
        return [run_task(policy, t, seeds, condition, lambda: progress(1)) for t in tasks]
    batches = [
        (task, seeds[i : i + SEEDS_PER_BATCH])
        for task in tasks
        for i in range(0, episodes, SEEDS_PER_BATCH)
    ]
    results = {task: TaskResult(task) for task in tasks}
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (choice,)) as pool:
        pending = [pool.submit(_run_batch, *batch, condition) for batch in batches]
        for (task, batch), future in zip(batches, pending, strict=True):
            results[task].extend(future.result())
            progress(len(batch))
    return list(results.values())


def summarize(results: Sequence[TaskResult]) -> dict[str, float]:
    """Figures over all tasks."""
    inference = [s for r in results for s in r.inference_s]
    outcomes = [s for r in results for s in r.successes]
    return {
        "success_rate": mean(outcomes),
        "expert_rate": mean([s for r in results for s in r.expert_successes]),
        "inference_ms_p50": 1e3 * percentile(inference, 0.5),
        "inference_ms_p95": 1e3 * percentile(inference, 0.95),
        "seam_jump_mean_m_s": mean([j for r in results for j in r.seam_jumps_m_s]),
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(caption="inference ms: p50 / p95; jumps at seams: mean / largest, cm/s")
    for column in ("task", "success", "95 %", "expert", "inference", "seams"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            row["task"],
            f"{row['successes']}/{row['episodes']}",
            f"{row['success_low']:.0%}..{row['success_high']:.0%}",
            f"{row['expert_rate']:.0%}",
            f"{row['inference_ms_p50']:.0f}/{row['inference_ms_p95']:.0f}",
            f"{100 * row['seam_jump_mean_m_s']:.1f}/{100 * row['seam_jump_max_m_s']:.1f}",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros-vla-accel eval", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="all by default")
    parser.add_argument("--episodes", type=int, default=50, help="per task")
    parser.add_argument("--first-seed", type=int, default=0, help="training starts at 100000")
    parser.add_argument("--policy", default=REFERENCE, help="module:factory")
    parser.add_argument("--policy-args", help="YAML file of the factory's arguments")
    parser.add_argument("--checkpoint", help="argument of the policy, over that of the file")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="a chunk arrives so late")
    parser.add_argument(
        "--wording", default="seen", choices=WORDINGS, help="instructions of training or others"
    )
    parser.add_argument(
        "--perturb", default="none", choices=PERTURBATIONS, help="what happens to the images"
    )
    parser.add_argument(
        "--bits", type=int, default=16, choices=ACTIVATION_BITS, help="activation width"
    )
    parser.add_argument(
        "--calibration", default="", metavar="YAML", help="width by the motion (see calibrate)"
    )
    parser.add_argument("--threads", type=int, help="torch threads of a process")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="where to write the result")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        tasks = [full_task_name(task) for task in args.tasks]
        for option in ("episodes", "workers"):
            if getattr(args, option) < 1:
                raise ValueError(f"--{option} {getattr(args, option)} must be at least 1")
        width = WidthChoice(args.bits, args.calibration)
        condition = Condition(args.latency_ms * 1e-3, args.wording, args.perturb, width)
        if args.json:
            check_writable(args.json)
        policy_args = policy_arguments(args.policy_args)
        if args.checkpoint:
            policy_args["checkpoint"] = args.checkpoint
        # Workers that each used every core would measure how they wait for each other.
        shared = max(1, (os.cpu_count() or 1) // args.workers) if args.workers > 1 else None
        choice = PolicyChoice(args.policy, policy_args, args.threads or shared)
        policy = choice.load()  # Here as well: what is wrong with it is said before the episodes.
        width.make(policy.spec)
        if executed_width(args.bits, policy.spec.widths) != args.bits:
            raise ValueError(
                f"policy '{policy.spec.name}' has no width of {args.bits} bits, only "
                f"{policy.spec.widths}; quantize it (quantize: w4ax among its arguments)"
            )
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("episodes", total=len(tasks) * args.episodes)
            results = evaluate(
                policy if args.workers == 1 else choice,
                tasks,
                args.episodes,
                condition,
                args.first_seed,
                args.workers,
                lambda count: progress.advance(bar, count),
            )
    except (PolicyLoadError, ValueError) as error:
        print(f"ros-vla-accel eval: {error}", file=sys.stderr)
        return 1
    rows = [result.row() for result in results]
    Console().print(_table(rows))
    if args.json:
        config = {
            "policy": args.policy,
            "policy_args": policy_args,
            "steps": getattr(policy, "steps", None),
            "checkpoint_hash": policy.spec.checkpoint_hash,
            "tasks": [task.removesuffix("-v3") for task in tasks],
            "episodes": args.episodes,
            "first_seed": args.first_seed,
            **asdict(condition),
            "threads": choice.threads,
            "workers": args.workers,
        }
        write_json(args.json, "eval", config, rows, summarize(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
