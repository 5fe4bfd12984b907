"""A policy in closed loop with the simulator, in process, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ros_vla_accel.contracts import Observation, Policy
from ros_vla_accel.experiments.execution import ChunkPlayer
from ros_vla_accel.experiments.perturbation import Perturbation
from ros_vla_accel.experiments.statistics import percentile, wilson_interval
from ros_vla_accel.experiments.width import WidthChoice
from ros_vla_accel.policies.instructions import WORDINGS, instructions
from ros_vla_accel.sim.env import MAX_STEPS, JointSample, SawyerEnv

CHECKED_KINDS = ("cartesian_velocity",)


@dataclass(frozen=True)
class Condition:
    """Under what a policy is evaluated. ValueError if it makes no sense.

    latency_s: a chunk arrives so late. wording: ``seen`` or ``unseen`` instructions.
    perturbation: what happens to the images, see ``perturbation.PERTURBATIONS``. width: of the
    inferences. expert: whether the scripted expert runs in the same scenes.
    """

    latency_s: float = 0.0
    wording: str = "seen"
    perturbation: str = "none"
    width: WidthChoice = field(default_factory=WidthChoice)
    expert: bool = True

    def __post_init__(self) -> None:
        if not self.latency_s >= 0:
            raise ValueError(f"latency_s {self.latency_s} must not be negative")
        if self.wording not in WORDINGS:
            raise ValueError(
                f"wording '{self.wording}' is unknown; choose from {', '.join(WORDINGS)}"
            )
        Perturbation(self.perturbation, 0)


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
    bits: list[int] = field(default_factory=list)
    early: int = 0
    seam_jumps_m_s: list[float] = field(default_factory=list)
    other_jumps_m_s: list[float] = field(default_factory=list)

    def extend(self, other: TaskResult) -> None:
        """Takes in further episodes of the same task."""
        self.starved += other.starved
        self.early += other.early
        for name in (
            "seeds",
            "successes",
            "expert_successes",
            "steps",
            "inference_s",
            "bits",
            "seam_jumps_m_s",
            "other_jumps_m_s",
        ):
            getattr(self, name).extend(getattr(other, name))

    def row(self) -> dict[str, Any]:
        """The task's row of the JSON result."""
        episodes, successes = len(self.successes), sum(self.successes)
        low, high = wilson_interval(successes, episodes)
        rate = successes / episodes if episodes else float("nan")
        expert = mean(self.expert_successes)
        return {
            "task": self.task.removesuffix("-v3"),
            "episodes": episodes,
            "successes": successes,
            "success_rate": rate,
            "success_low": low,
            "success_high": high,
            "expert_rate": expert,
            "relative_to_expert": rate / expert if expert > 0 else float("nan"),
            "steps_mean": float(np.mean(self.steps)) if self.steps else float("nan"),
            "starved_steps": self.starved,
            "inferences": len(self.inference_s),
            "inferences_asked_early": self.early,
            "inferences_by_bits": {str(b): self.bits.count(b) for b in sorted(set(self.bits))},
            "inference_ms_p50": 1e3 * percentile(self.inference_s, 0.5),
            "inference_ms_p95": 1e3 * percentile(self.inference_s, 0.95),
            "seam_jump_mean_m_s": mean(self.seam_jumps_m_s),
            "seam_jump_max_m_s": max(self.seam_jumps_m_s, default=float("nan")),
            "other_jump_mean_m_s": mean(self.other_jumps_m_s),
            "seeds": self.seeds,
            "outcomes": [int(s) for s in self.successes],
            "expert_outcomes": [int(s) for s in self.expert_successes],
        }


def mean(values: Sequence[float]) -> float:
    """NaN for no values."""
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


def run_episode(
    env: SawyerEnv, player: ChunkPlayer, seed: int, condition: Condition, result: TaskResult
) -> bool:
    """One closed-loop episode in the scene of ``seed``; adds its figures to ``result``."""
    spec = player.policy.spec
    order = StateOrder(env, spec.state_names)
    texts = instructions(env.task, condition.wording)
    instruction = texts[seed % len(texts)]
    perturb = Perturbation(condition.perturbation, seed)

    def observe(stamp_ns: int) -> Observation:
        images = {camera.name: perturb(env.render(camera.name)) for camera in spec.cameras}
        return Observation(images, order(env.state()), instruction, stamp_ns)

    env.reset(seed)
    player.reset(episode_id=seed, seed=seed << 16)
    player.width.reset(JointSample(env.time_s, *env.joints()))
    before: np.ndarray | None = None
    for step in range(MAX_STEPS):
        row = player.act(step, observe)
        if before is not None:
            jump = float(np.linalg.norm(row.action[:3] - before))
            (result.seam_jumps_m_s if row.seam else result.other_jumps_m_s).append(jump)
        before = row.action[:3]
        result.starved += row.starved
        env.step(row.action)
        player.moved(env.samples, row.action, step)
        if env.success:
            break
    result.seeds.append(seed)
    result.steps.append(step + 1)
    result.successes.append(env.success)
    return env.success


def run_task(
    policy: Policy,
    task: str,
    seeds: Sequence[int],
    condition: Condition,
    progress: Callable[[], None] = lambda: None,
) -> TaskResult:
    """Runs policy and expert on the seeds of one task.

    Raises ValueError when the policy does not fit the simulator, or the calibration the policy.
    """
    spec = policy.spec
    if spec.action_kind not in CHECKED_KINDS:
        raise ValueError(
            f"policy '{spec.name}' commands '{spec.action_kind}'; the simulator takes "
            f"{', '.join(CHECKED_KINDS)}"
        )
    size = max((max(c.height, c.width) for c in spec.cameras), default=64)
    env = SawyerEnv(task, cameras=tuple(c.name for c in spec.cameras), image_size=size)
    result, width = TaskResult(env.task), condition.width.make(spec)
    for seed in seeds:
        # The player starts afresh: an episode must not depend on the ones before it.
        player = ChunkPlayer(policy, condition.latency_s, width)
        run_episode(env, player, seed, condition, result)
        result.inference_s += player.inference_s
        result.bits += player.bits
        result.early += player.early
        if condition.expert:
            result.expert_successes.append(expert_succeeds(env, seed))
        progress()
    env.close()
    return result
