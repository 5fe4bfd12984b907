"""``ros-vla-accel eval``: success of a policy in closed loop, in process, on a virtual clock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ros_vla_accel.contracts import Observation, Policy
from ros_vla_accel.experiments.execution import ChunkPlayer
from ros_vla_accel.experiments.statistics import (
    check_writable,
    percentile,
    wilson_interval,
    write_json,
)
from ros_vla_accel.policies import PolicyLoadError, load_policy
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.loader import policy_arguments
from ros_vla_accel.sim.env import MAX_STEPS, TASKS, SawyerEnv, full_task_name

REFERENCE = "ros_vla_accel.policies:reference"
CHECKED_KINDS = ("cartesian_velocity",)


@dataclass
class TaskResult:
    """Episodes of one task; all lists run over the same seeds."""

    task: str
    seeds: list[int] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    expert_successes: list[bool] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    starved: int = 0
    inference_s: list[float] = field(default_factory=list)
    seam_jumps_m_s: list[float] = field(default_factory=list)
    other_jumps_m_s: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The task's row of the JSON result."""
        episodes, successes = len(self.successes), sum(self.successes)
        low, high = wilson_interval(successes, episodes)
        rate = successes / episodes if episodes else float("nan")
        expert = float(np.mean(self.expert_successes)) if episodes else float("nan")
        return {
            "task": self.task.removesuffix("-v3"),
            "episodes": episodes,
            "successes": successes,
            "success_rate": rate,
            "success_low": low,
            "success_high": high,
            "expert_rate": expert,
            "relative_to_expert": rate / expert if expert else float("nan"),
            "steps_mean": float(np.mean(self.steps)) if self.steps else float("nan"),
            "starved_steps": self.starved,
            "inferences": len(self.inference_s),
            "inference_ms_p50": 1e3 * percentile(self.inference_s, 0.5),
            "inference_ms_p95": 1e3 * percentile(self.inference_s, 0.95),
            "seam_jump_mean_m_s": _mean(self.seam_jumps_m_s),
            "seam_jump_max_m_s": max(self.seam_jumps_m_s, default=float("nan")),
            "other_jump_mean_m_s": _mean(self.other_jumps_m_s),
            "seeds": self.seeds,
            "outcomes": [int(s) for s in self.successes],
            "expert_outcomes": [int(s) for s in self.expert_successes],
        }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


class StateOrder:
    """Joint positions of the simulator in the order that the policy wants."""

    def __init__(self, env: SawyerEnv, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in env.state_names]
        if missing:
            raise ValueError(
                f"the simulator has no joint {', '.join(missing)}; it has "
                f"{', '.join(env.state_names)}"
            )
        self._index = [env.state_names.index(name) for name in names]

    def __call__(self, state: np.ndarray) -> np.ndarray:
        return state[self._index]


def expert_succeeds(env: SawyerEnv, seed: int) -> bool:
    """Runs the scripted expert in the scene of ``seed``."""
    env.reset(seed)
    for _ in range(MAX_STEPS):
        env.step(env.expert_action())
        if env.success:
            break
    return env.success


def run_episode(env: SawyerEnv, player: ChunkPlayer, seed: int, result: TaskResult) -> bool:
    """One closed-loop episode in the scene of ``seed``; adds its figures to ``result``."""
    spec = player.policy.spec
    order = StateOrder(env, spec.state_names)
    texts = instructions(env.task)
    instruction = texts[seed % len(texts)]

    def observe(stamp_ns: int) -> Observation:
        images = {camera.name: env.render(camera.name) for camera in spec.cameras}
        return Observation(images, order(env.state()), instruction, stamp_ns)

    env.reset(seed)
    player.reset(episode_id=seed, seed=seed << 16)
    before: np.ndarray | None = None
    for step in range(MAX_STEPS):
        row = player.act(step, observe)
        if before is not None:
            jump = float(np.linalg.norm(row.action[:3] - before))
            (result.seam_jumps_m_s if row.seam else result.other_jumps_m_s).append(jump)
        before = row.action[:3]
        result.starved += row.starved
        env.step(row.action)
        if env.success:
            break
    result.seeds.append(seed)
    result.steps.append(step + 1)
    result.successes.append(env.success)
    return env.success


def evaluate(
    policy: Policy,
    tasks: Sequence[str],
    episodes: int,
    latency_s: float = 0.0,
    first_seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> list[TaskResult]:
    """Runs policy and expert on the seeds ``first_seed`` onward of every task.

    Raises ValueError when the policy does not fit the simulator.
    """
    spec = policy.spec
    if spec.action_kind not in CHECKED_KINDS:
        raise ValueError(
            f"policy '{spec.name}' commands '{spec.action_kind}'; the simulator takes "
            f"{', '.join(CHECKED_KINDS)}"
        )
    results = []
    for task in tasks:
        size = max((max(c.height, c.width) for c in spec.cameras), default=64)
        env = SawyerEnv(task, cameras=tuple(c.name for c in spec.cameras), image_size=size)
        result = TaskResult(env.task)
        for seed in range(first_seed, first_seed + episodes):
            # The player starts afresh: an episode must not depend on the ones before it.
            player = ChunkPlayer(policy, latency_s)
            run_episode(env, player, seed, result)
            result.inference_s += player.inference_s
            result.expert_successes.append(expert_succeeds(env, seed))
            progress()
        env.close()
        results.append(result)
    return results


def summarize(results: Sequence[TaskResult]) -> dict[str, float]:
    """Figures over all tasks."""
    inference = [s for r in results for s in r.inference_s]
    outcomes = [s for r in results for s in r.successes]
    return {
        "success_rate": _mean(outcomes),
        "expert_rate": _mean([s for r in results for s in r.expert_successes]),
        "inference_ms_p50": 1e3 * percentile(inference, 0.5),
        "inference_ms_p95": 1e3 * percentile(inference, 0.95),
        "seam_jump_mean_m_s": _mean([j for r in results for j in r.seam_jumps_m_s]),
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel eval", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="all by default")
    parser.add_argument("--episodes", type=int, default=50, help="per task")
    parser.add_argument("--first-seed", type=int, default=0, help="training starts at 100000")
    parser.add_argument("--policy", default=REFERENCE, help="module:factory")
    parser.add_argument("--policy-args", help="YAML file of the factory's arguments")
    parser.add_argument("--checkpoint", help="argument of the policy, over that of the file")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="a chunk arrives so late")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args(argv)
    try:
        tasks = [full_task_name(task) for task in args.tasks]
        if args.episodes < 1:
            raise ValueError(f"--episodes {args.episodes} must be at least 1")
        if args.json:
            check_writable(args.json)
        policy_args = policy_arguments(args.policy_args)
        if args.checkpoint:
            policy_args["checkpoint"] = args.checkpoint
        policy = load_policy(args.policy, policy_args)
        if args.threads:
            import torch

            torch.set_num_threads(args.threads)
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("episodes", total=len(tasks) * args.episodes)
            results = evaluate(
                policy,
                tasks,
                args.episodes,
                args.latency_ms * 1e-3,
                args.first_seed,
                lambda: progress.advance(bar),
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
            "latency_ms": args.latency_ms,
            "threads": args.threads,
        }
        write_json(args.json, "eval", config, rows, summarize(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
