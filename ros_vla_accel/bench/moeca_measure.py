"""Runs contenders of ``bench moeca`` on a head: their chunks, time and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ros_vla_accel.bench.moeca_cases import Case, executed_rows
from ros_vla_accel.bench.moeca_contenders import Contender
from ros_vla_accel.moeca import BranchCacheConfig, disable_cache, enable_cache, summary
from ros_vla_accel.policies.reference_policy import ReferencePolicy


class Bench:
    """All contenders on the head of one policy. clock: seconds."""

    def __init__(self, policy: ReferencePolicy, clock: Callable[[], float]) -> None:
        self.policy, self.clock = policy, clock
        self.head = policy.model.head
        low, high = policy.manifest.normalization.bounds()
        self._bounds = torch.from_numpy(low), torch.from_numpy(high)

    def infer(self, contender: Contender, case: Case, guess: Tensor | None = None) -> Tensor:
        """Normalized chunks (B, K, H, A)."""
        return self.policy.model.act(
            case.context,
            case.noise,
            contender.steps,
            self._bounds,
            contender.solver,
            guess,
            contender.warm_start,
        )

    def chunks(
        self, contender: Contender, made: Sequence[Case], before: np.ndarray | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Chunks (cases, B * K, H, A) and what computing them took: untimed, as products are
        counted. before: chunks that a warm start finds in play, those of the case before."""
        self.enable(contender)
        flops, found = FlopCounter(self.head), []
        for number, case in enumerate(made):
            guess = self.guess(before, number) if contender.warm_start and case.follows else None
            found.append(self.infer(contender, case, guess).flatten(0, 1))
        total = sum(case.chunks for case in made)
        figures = {"gflop": flops.stop() / total / 1e9}
        if contender.cache is not None:
            report = summary(self.head)
            figures |= {
                "branch_reuse": report.branch_reuse if report.counts.branches else float("nan"),
                "path_reuse": report.path_reuse,
                "cache_kb": report.peak_bytes / 1e3,
            }
        self.disable(contender)
        return torch.stack(found).numpy(), figures

    def guess(self, before: np.ndarray | None, number: int) -> Tensor:
        """(1, 1, H, A): what the chunk of the case before ``number`` has left, drawn out."""
        assert before is not None
        rows = executed_rows(self.policy.spec)
        chunk = torch.from_numpy(before[number - 1])
        left = torch.cat([chunk[:, rows:], chunk[:, -1:].expand(-1, rows, -1)], dim=1)
        return left.unsqueeze(0)

    def times(
        self, entries: Sequence[Contender], made: Sequence[Case], turns: int, before: np.ndarray
    ) -> np.ndarray:
        """Seconds per call (contenders, turns)."""
        out = np.empty((len(entries), turns))
        rng = np.random.default_rng(0)
        warm = [n for n, case in enumerate(made) if case.follows]
        for turn in range(-1, turns):  # The first warms up.
            # Who came before leaves its mark on the caches: in a fixed order, equal work was seen
            # to differ by 9 %.
            for number in rng.permutation(len(entries)):
                contender, guess = entries[number], None
                case = made[turn % len(made)]
                if contender.warm_start:
                    place = warm[turn % len(warm)]
                    case, guess = made[place], self.guess(before, place)
                self.enable(contender)
                start = self.clock()
                self.infer(contender, case, guess)
                out[number, max(turn, 0)] = self.clock() - start
                self.disable(contender)
        return out

    def hook_overhead(self, case: Case, turns: int) -> float:
        """Share that a head with an idle cache takes longer, called outside of any session."""
        times = np.empty((2, turns))
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

    def enable(self, contender: Contender) -> None:
        if contender.cache is not None:
            enable_cache(self.head, contender.cache)

    def disable(self, contender: Contender) -> None:
        if contender.cache is not None:
            disable_cache(self.head)


class FlopCounter:
    """Counts multiplications and additions of the linear layers that run, until ``stop``."""

    def __init__(self, model: nn.Module) -> None:
        self._flops = 0
        layers = (m for m in model.modules() if hasattr(m, "in_features"))
        self._hooks = [layer.register_forward_hook(self._count) for layer in layers]

    def _count(self, layer: Any, args: Any, out: Tensor) -> None:
        self._flops += 2 * out.numel() * layer.in_features

    def stop(self) -> int:
        for hook in self._hooks:
            hook.remove()
        return self._flops


def errors(policy: ReferencePolicy, found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Distances of chunks (cases, B * K, H, A), of each entry in units of the largest command, and
    of velocities in m/s. Not in normalized units: they blow up an entry that hardly varied in
    training, such as the gripper of a task that does not grasp."""
    low, high = policy.manifest.normalization.bounds()
    distance = np.abs(found - exact) * (2 / (high - low))
    unnormalize = policy.manifest.normalization.unnormalize
    velocity = np.linalg.norm((unnormalize(found) - unnormalize(exact))[..., :3], axis=-1)
    return {
        "error_mean": float(distance.mean()),
        "error_p99": float(np.percentile(distance, 99)),
        "velocity_error_mean_m_s": float(velocity.mean()),
        "velocity_error_p99_m_s": float(np.percentile(velocity, 99)),
    }


def seam_jump(policy: ReferencePolicy, found: np.ndarray, made: Sequence[Case]) -> float:
    """Mean jump of velocity, m/s, from the last executed row of a chunk to the next chunk's
    first; NaN where no case follows another. The observations are the expert's, so it is the same
    scene for all contenders."""
    rows = executed_rows(policy.spec)
    velocity = policy.manifest.normalization.unnormalize(found)[..., :3]
    jumps = [
        np.linalg.norm(velocity[i, 0, 0] - velocity[i - 1, 0, rows - 1])
        for i, case in enumerate(made)
        if case.follows
    ]
    return float(np.mean(jumps)) if jumps else float("nan")
