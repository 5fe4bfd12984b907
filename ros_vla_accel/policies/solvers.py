"""Solvers of the sampling equations. Each evaluation of the head is one step of a cache session.

Better solvers at fewer steps are what a cache has to be faster than.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ros_vla_accel.moeca import begin
from ros_vla_accel.policies.head import ActionHead

FLOW = {"euler": 1, "midpoint": 2, "heun": 2}
"""Solver -> evaluations of the head per step; the first is the default."""
DIFFUSION = {"ddim": 1, "dpmpp_2m": 1}


def flow(solver: str, head: ActionHead, context: Tensor, x: Tensor, steps: int) -> Tensor:
    """Integrates the velocity from time 0 to 1 in equal steps; x: (B, K, H, A) noise.

    midpoint and heun are the second-order Runge-Kutta methods of those names.
    """
    times = torch.arange(steps, device=x.device) / steps
    stages = FLOW[solver]
    if stages == 2:
        offset = 0.5 if solver == "midpoint" else 1.0
        times = torch.stack([times, times + offset / steps], dim=1).flatten()
    conditioning = head.condition(context, times.expand(len(x), -1))
    session = begin(head, len(times))

    def velocity(x: Tensor, index: int) -> Tensor:
        with session.step(index):
            return head(x.to(context.dtype), conditioning.step(index)).to(x.dtype)

    for index in range(0, len(times), stages):
        slope = velocity(x, index)
        if solver == "midpoint":
            slope = velocity(x + slope / (2 * steps), index + 1)
        elif solver == "heun":
            slope = (slope + velocity(x + slope / steps, index + 1)) / 2
        x = x + slope / steps
    return x


def diffusion(
    solver: str,
    head: ActionHead,
    context: Tensor,
    x: Tensor,
    levels: list[float],
    times: Tensor,
    bounds: tuple[Tensor, Tensor],
) -> Tensor:
    """Denoises x (B, K, H, A) over falling noise; both solvers are deterministic.

    levels: cumulative signal levels of the steps, and 1.0 for the clean end. times: (S,) what the
    head is told. ddim: arXiv:2010.02502. dpmpp_2m: DPM-Solver++ 2M (arXiv:2211.01095, algorithm
    2), which draws the clean estimate on along the line through the last two; the step that ends
    without noise is DDIM's, as its length in log signal-to-noise is not finite.
    """
    conditioning = head.condition(context, times.to(x.device).expand(len(x), -1))
    session = begin(head, len(times))
    last: tuple[Tensor, float] | None = None
    for index in range(len(times)):
        level, following = levels[index], levels[index + 1]
        with session.step(index):
            noise = head(x.to(context.dtype), conditioning.step(index)).to(x.dtype)
        clean = ((x - math.sqrt(1 - level) * noise) / math.sqrt(level)).clamp(*bounds)
        target = clean
        if solver == "dpmpp_2m" and following < 1.0:
            length = _log_snr(following) - _log_snr(level)
            if last is not None:
                target = clean + (clean - last[0]) * (length / (2 * last[1]))
            last = clean, length
        noise = (x - math.sqrt(level) * target) / math.sqrt(1 - level)
        x = math.sqrt(following) * target + math.sqrt(1 - following) * noise
    return x


def _log_snr(level: float) -> float:
    """Half the logarithm of signal over noise variance (lambda in the paper)."""
    return 0.5 * math.log(level / (1 - level))
