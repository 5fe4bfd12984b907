"""The head's time against the error of its chunks: MoECa, other caches, fewer steps, solvers.

Every contender answers the same observations (scripted episodes in the simulator, every 8 steps
of them) with the same noise. Error is the distance of its chunk from that of the plain sampler
at ``--steps``, per entry in normalized action units (about -1..1), and of the velocities in m/s;
it says nothing about success. Contenders take turns, one inference each, so that a busy machine
slows all alike; a speed-up is the median over turns of plain time over own time in that turn.
``gflop`` counts the products of linear layers that were really run, per chunk.

``--scale`` measures one denoising step of a larger head with random weights instead (D 1152,
H 4608, 16 experts, 256 tokens): where experts are large, time follows the budget.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import nn

from ros_vla_accel.bench.common import Result
from ros_vla_accel.bench.moeca_contenders import Contender, contenders
from ros_vla_accel.bench.moeca_report import draw_front, front_behind, show
from ros_vla_accel.bench.moeca_scale import run_scale
from ros_vla_accel.contracts import InferenceRequest, Observation, PolicySpec
from ros_vla_accel.moeca import BranchCacheConfig, disable_cache, enable_cache, summary
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.sim.env import SawyerEnv

TASKS = ("drawer-open-v3", "button-press-topdown-v3", "window-open-v3", "pick-place-v3")
MOMENTS = 4
"""Observations per episode, ``replan_rows`` apart."""


@dataclass(frozen=True)
class Case:
    """One inference to make. context: (1, M, D); noise: (1, 1, H, A); follows: whether the case
    before it is the same episode, ``replan_rows`` earlier."""

    context: torch.Tensor
    noise: torch.Tensor
    follows: bool


def look(spec: PolicySpec, episodes: int) -> list[list[Observation]]:
    """Observations along scripted episodes, tasks in turn; for a process of its own."""
    rows, found = executed_rows(spec), []
    for seed in range(episodes):
        env = SawyerEnv(TASKS[seed % len(TASKS)], cameras=tuple(c.name for c in spec.cameras))
        env.reset(seed)
        seen = []
        for _ in range(MOMENTS):
            images = {c.name: env.render(c.name) for c in spec.cameras}
            seen.append(Observation(images, env.state(), instructions(env.task)[0], stamp_ns=0))
            for _ in range(rows):
                env.step(env.expert_action())
        env.close()
        found.append(seen)
    return found


def executed_rows(spec: PolicySpec) -> int:
    """Rows of a chunk that are played before the next one."""
    return spec.replan_rows or spec.horizon // 2


def cases(policy: ReferencePolicy, episodes: int) -> list[Case]:
    """Each observation with noise of its own."""
    # Software rendering and torch get into each other's threads.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        seen = process.submit(look, policy.spec, episodes).result()
    found = []
    for seed, observations in enumerate(seen):
        for moment, observation in enumerate(observations):
            request = InferenceRequest(observation, request_id=0, episode_id=seed, seed=0)
            context = policy._contexts([request], {})
            noise = policy._noise(1000 * seed + moment).unsqueeze(0)
            found.append(Case(context, noise, moment > 0))
    return found


class Bench:
    """All contenders on the head of one policy. clock: seconds."""

    def __init__(
        self, policy: ReferencePolicy, made: list[Case], clock: Callable[[], float]
    ) -> None:
        self.policy, self.cases, self.clock = policy, made, clock
        self.head = policy.model.head

    def infer(self, contender: Contender, case: Case) -> torch.Tensor:
        """The normalized chunk (H, A)."""
        chunk = self.policy.model.act(
            case.context, case.noise, contender.steps, self.policy._bounds, contender.solver
        )
        return chunk[0, 0]

    def chunks(self, contender: Contender) -> tuple[np.ndarray, dict[str, float]]:
        """Chunks (cases, H, A) and what computing them took: not timed, as FLOPs are counted."""
        self._enable(contender)
        flops = FlopCounter(self.head)
        chunks = torch.stack([self.infer(contender, case) for case in self.cases])
        figures = {"gflop": flops.stop() / len(self.cases) / 1e9}
        if contender.cache is not None:
            report = summary(self.head)
            figures |= {
                "branch_reuse": report.branch_reuse if report.counts.branches else float("nan"),
                "path_reuse": report.path_reuse,
                "cache_kb": report.peak_bytes / 1e3,
            }
        self._disable(contender)
        return chunks.numpy(), figures

    def times(self, entries: list[Contender], turns: int) -> np.ndarray:
        """Seconds (contenders, turns)."""
        out = np.empty((len(entries), turns))
        for turn in range(-1, turns):  # The first warms up.
            case = self.cases[turn % len(self.cases)]
            for number, contender in enumerate(entries):
                self._enable(contender)
                start = self.clock()
                self.infer(contender, case)
                out[number, max(turn, 0)] = self.clock() - start
                self._disable(contender)
        return out

    def hook_overhead(self, turns: int) -> float:
        """Share that a head with an idle cache takes longer, called outside of any session."""
        case, times = self.cases[0], np.empty((2, turns))
        conditioning = self.head.condition(case.context, torch.zeros(1, 1))
        for turn in range(turns):
            for enabled in (0, 1):
                if enabled:
                    enable_cache(self.head, BranchCacheConfig())
                start = self.clock()
                for _ in range(5):
                    self.head(case.noise, conditioning)
                times[enabled, turn] = self.clock() - start
                if enabled:
                    disable_cache(self.head)
        return float(np.median(times[1] / times[0])) - 1

    def _enable(self, contender: Contender) -> None:
        if contender.cache is not None:
            enable_cache(self.head, contender.cache)

    def _disable(self, contender: Contender) -> None:
        if contender.cache is not None:
            disable_cache(self.head)


class FlopCounter:
    """Counts multiplications and additions of the linear layers that run, until ``stop``."""

    def __init__(self, model: nn.Module) -> None:
        self._flops = 0
        layers = (m for m in model.modules() if hasattr(m, "in_features"))
        self._hooks = [layer.register_forward_hook(self._count) for layer in layers]

    def _count(self, layer: Any, args: Any, out: torch.Tensor) -> None:
        self._flops += 2 * out.numel() * layer.in_features

    def stop(self) -> int:
        for hook in self._hooks:
            hook.remove()
        return self._flops


def errors(policy: ReferencePolicy, found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Distances of chunks (cases, H, A) in normalized units, and of velocities in m/s."""
    distance = np.abs(found - exact)
    unnormalize = policy.manifest.normalization.unnormalize
    velocity = np.linalg.norm((unnormalize(found) - unnormalize(exact))[..., :3], axis=-1)
    return {
        "error_mean": float(distance.mean()),
        "error_p99": float(np.percentile(distance, 99)),
        "velocity_error_mean_m_s": float(velocity.mean()),
        "velocity_error_p99_m_s": float(np.percentile(velocity, 99)),
    }


def seam_jump(policy: ReferencePolicy, found: np.ndarray, made: list[Case]) -> float:
    """Mean jump of velocity, m/s, from the last executed row of a chunk to the next chunk's
    first. The observations are the expert's, so it is the same scene for all contenders."""
    rows = executed_rows(policy.spec)
    velocity = policy.manifest.normalization.unnormalize(found)[..., :3]
    jumps = [
        np.linalg.norm(velocity[i, 0] - velocity[i - 1, rows - 1])
        for i, case in enumerate(made)
        if case.follows
    ]
    return float(np.mean(jumps)) if jumps else float("nan")


def run(steps: list[int], threads: list[int], episodes: int, turns: int, cpu_time: bool) -> Result:
    """Every contender at every number of steps and threads."""
    policy = ReferencePolicy()
    clock = time.thread_time if cpu_time else time.perf_counter
    rows: list[dict[str, Any]] = []
    before = torch.get_num_threads()
    objective = policy.manifest.model.objective
    summary_: dict[str, Any] = {}
    with torch.inference_mode():
        made = cases(policy, episodes)
        bench = Bench(policy, made, clock)
        exact_at_budget_1 = True
        for number in steps:
            entries = contenders(objective, number)
            torch.set_num_threads(1)
            plain, figures = bench.chunks(entries[0])
            whole = Contender("moeca", "budget 1", number, None, BranchCacheConfig(budget=1.0))
            exact_at_budget_1 &= bool(np.array_equal(bench.chunks(whole)[0], plain))
            entries = [*entries, whole]
            described = []
            for contender in track(entries, f"errors, {number} steps", transient=True):
                found, figures = bench.chunks(contender)
                figures |= errors(policy, found, plain)
                described.append({**figures, "seam_jump_m_s": seam_jump(policy, found, made)})
            for count in threads:
                torch.set_num_threads(count)
                taken = bench.times(entries, turns)
                ratios = taken[0] / taken
                for i, contender in enumerate(entries):
                    low, high = np.percentile(ratios[i], [25, 75])
                    rows.append(
                        {
                            "objective": objective,
                            "reference_steps": number,
                            "threads": count,
                            "family": contender.family,
                            "setting": contender.setting,
                            "steps": contender.steps,
                            "ms": 1e3 * float(np.median(taken[i])),
                            "ms_iqr": [1e3 * v for v in np.percentile(taken[i], [25, 75])],
                            "speedup": float(np.median(ratios[i])),
                            "speedup_iqr": [float(low), float(high)],
                            **described[i],
                        }
                    )
        torch.set_num_threads(1)
        summary_["hook_overhead"] = bench.hook_overhead(4 * turns)
        summary_["exact_at_budget_1"] = exact_at_budget_1
    torch.set_num_threads(before)
    behind, ratios = front_behind(rows)
    summary_ |= {"front_behind": behind} | {f"front_{k}": v for k, v in ratios.items()}
    config = {
        "cases": len(made),
        "turns": turns,
        "clock": "processor time of one thread" if cpu_time else "elapsed time",
        "batch": 1,
        "torch": torch.__version__,
    }
    return Result("moeca", config, rows, summary_)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ros-vla-accel bench moeca", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer observations and turns")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50], help="plain samplers")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--episodes", type=int, help="scripted episodes (default 16, quick 4)")
    parser.add_argument("--turns", type=int, help="timed inferences of each (default 31, quick 7)")
    parser.add_argument("--scale", action="store_true", help="a larger head with random weights")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of the larger head")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time of one thread, for a machine that others keep busy",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result here")
    parser.add_argument("--png", metavar="PATH", help="draw the front here (needs matplotlib)")
    options = parser.parse_args(argv)
    if options.cpu_time and options.threads != [1]:
        parser.error("--cpu-time is the time of one thread; add --threads 1")
    turns = options.turns or (7 if options.quick else 31)
    if options.scale:
        result = run_scale(options.blocks, options.threads, turns, options.cpu_time)
    else:
        episodes = options.episodes or (4 if options.quick else 16)
        result = run(options.steps, options.threads, episodes, turns, options.cpu_time)
    show(result)
    if options.json:
        result.write(options.json)
    if options.png and not options.scale:
        draw_front(result.rows, options.png)
    return 0
