"""How the action head is trained and sampled: flow matching, or diffusion.

Both draw from the same standard normal noise and answer in normalized action units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ros_vla_accel.policies import solvers
from ros_vla_accel.policies.head import ActionHead

DIFFUSION_STEPS = 100
"""Training steps of the diffusion objective, as in Diffusion Policy (arXiv:2303.04137)."""
STEP_RANGES = {"flow": (1, 1000), "ddpm": (2, DIFFUSION_STEPS)}
"""Fewest and most sampling steps. One DDIM step would start and end in pure noise, of which an
estimate divides by a signal level of nearly zero."""


def check_steps(objective: str, steps: int) -> None:
    """ValueError unless the objective's sampler can take so many denoising steps."""
    low, high = STEP_RANGES[objective]
    if not low <= steps <= high:
        raise ValueError(
            f"steps {steps} must lie in {low}..{high} for a policy of objective '{objective}'"
        )


def signal_levels(steps: int = DIFFUSION_STEPS) -> Tensor:
    """Cumulative signal level (steps,) of the squared-cosine schedule (arXiv:2102.09672)."""
    edges = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - beta, 0).float()


def noisy_batch(
    objective: str, actions: Tensor, noise: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Training pair of the head.

    actions: (B, 1, H, A) normalized; noise: (B, K, H, A); uniform: (B, K) in [0, 1).
    Returns the head's input, its time (B, K) in [0, 1] and the target that it must predict.
    """
    if objective == "flow":
        time = uniform
        mixed = time[..., None, None]
        return (1 - mixed) * noise + mixed * actions, time, actions - noise
    index = (uniform * DIFFUSION_STEPS).long()
    level = signal_levels().to(actions.device)[index][..., None, None]
    return level.sqrt() * actions + (1 - level).sqrt() * noise, index / DIFFUSION_STEPS, noise


def sample(
    objective: str,
    head: ActionHead,
    context: Tensor,
    noise: Tensor,
    steps: int,
    bounds: tuple[Tensor, Tensor],
    solver: str | None = None,
    guess: Tensor | None = None,
    start: float = 0.0,
) -> Tensor:
    """Denoises ``noise`` (B, K, H, A) into chunks under context (B, N, D).

    flow: steps of equal size from noise (time 0) to action (time 1), by solver ``euler`` (the
    default), ``midpoint`` or ``heun``, which evaluate the head twice per step. ddpm: evenly
    spaced steps, the estimate clipped to ``bounds`` (A,), by ``ddim`` (the default), ``dpmpp_2m``
    or ``ancestral``, which adds new noise at each step. The chunk keeps the precision of ``noise``
    from step to step, whatever that of the head. guess: chunks (B, K, H, A) to begin at, the
    ``start`` share of the steps being skipped (``warm_start.py``). Raises ValueError for a number
    of steps out of ``STEP_RANGES``, or another solver.
    """
    check_steps(objective, steps)
    known = solvers.FLOW if objective == "flow" else solvers.DIFFUSION
    solver = solver or next(iter(known))
    if solver not in known:
        raise ValueError(
            f"solver '{solver}' is unknown for a policy of objective '{objective}'; "
            f"choose from {sorted(known)}"
        )
    skipped = 0 if guess is None else min(round(start * steps), steps - 1)
    if objective == "flow":
        if guess is not None:
            share = skipped / steps
            noise = (1 - share) * noise + share * guess
        return solvers.flow(solver, head, context, noise, steps, skipped)
    indices = torch.linspace(DIFFUSION_STEPS - 1, 0, steps).round().long()[skipped:]
    levels = [*signal_levels()[indices].tolist(), 1.0]
    if guess is not None:
        noise = levels[0] ** 0.5 * guess + (1 - levels[0]) ** 0.5 * noise
    times = indices / DIFFUSION_STEPS
    return solvers.diffusion(solver, head, context, noise, levels, times, bounds)
