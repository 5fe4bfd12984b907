"""The observations that ``bench moeca`` lets its contenders answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor

from ros_vla_accel.contracts import Observation, PolicySpec
from ros_vla_accel.policies.instructions import instructions
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.sim.env import SawyerEnv, full_task_name

MOMENTS = 4
"""Observations per episode."""
BATCHES = {"one": (1, 1), "fleet": (8, 1), "samples": (1, 16)}
"""Name -> observations and chunks of each: a robot, eight robots, sample-and-select."""


@dataclass(frozen=True)
class Case:
    """One call of the head. context: (B, M, D); noise: (B, K, H, A); follows: whether the case
    before it is the same episode, some rows earlier."""

    context: Tensor
    noise: Tensor
    follows: bool = False

    @property
    def chunks(self) -> int:
        return self.noise.shape[0] * self.noise.shape[1]


def executed_rows(spec: PolicySpec) -> int:
    """Rows of a chunk that are played before the next one."""
    return spec.replan_rows or spec.horizon // 2


def look(
    spec: PolicySpec, tasks: Sequence[str], episodes: int, rows: int
) -> list[list[Observation]]:
    """Observations along scripted episodes, so many rows apart, tasks in turn; for a process of
    its own."""
    found = []
    for seed in range(episodes):
        task = full_task_name(tasks[seed % len(tasks)])
        env = SawyerEnv(task, cameras=tuple(c.name for c in spec.cameras))
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


def cases(policy: ReferencePolicy, episodes: int, rows: int | None = None) -> list[Case]:
    """Each observation with noise of its own, by itself. rows: how far apart, as far as a chunk
    is executed when None."""
    tasks, rows = policy.manifest.training["tasks"], rows or executed_rows(policy.spec)
    # Software rendering and torch get into each other's threads.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        seen = process.submit(look, policy.spec, tasks, episodes, rows).result()
    found = []
    for seed, observations in enumerate(seen):
        for moment, observation in enumerate(observations):
            context = torch.from_numpy(policy.encode(observation, "backbone").tensors["context"])
            noise = _noise(policy.spec, 1000 * seed + moment, 1)
            found.append(Case(context.unsqueeze(0), noise, moment > 0))
    return found


def batched(single: Sequence[Case], batch: str, spec: PolicySpec) -> list[Case]:
    """The same observations, as many to a call as ``BATCHES`` says, and with so many noises."""
    robots, samples = BATCHES[batch]
    if batch == "one":
        return list(single)
    if robots == 1:
        # One moment of each episode will do: there are as many chunks as observations else.
        some = single[::MOMENTS]
        return [Case(c.context, _noise(spec, i, samples)) for i, c in enumerate(some)]
    # Whole episodes lie together; robots of one call are at the same moment of different ones.
    order = [c for moment in range(MOMENTS) for c in single[moment::MOMENTS]]
    order += order[: -len(order) % robots]
    return [
        Case(torch.cat([c.context for c in part]), torch.cat([c.noise for c in part]))
        for part in (order[i : i + robots] for i in range(0, len(order), robots))
    ]


def _noise(spec: PolicySpec, seed: int, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, samples, spec.horizon, len(spec.action_names), generator=generator)
