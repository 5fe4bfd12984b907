"""Solvers of the sampling equations. Each evaluation of the head is one step of a cache session.

Better solvers at fewer steps are what a cache has to be faster than.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from ros_vla_accel.moeca import begin
from ros_vla_accel.policies.head import ActionHead

FLOW = {"euler": 1, "midpoint": 2, "heun": 2}
"""Solver -> evaluations of the head per step; the first is the default."""
DIFFUSION = {"ddim": 1, "dpmpp_2m": 1, "ancestral": 1}


def flow(
    solver: str, head: ActionHead, context: Tensor, x: Tensor, steps: int, skipped: int = 0
) -> Tensor:
    """Integrates the velocity from time 0 to 1 in equal steps, or from where ``skipped`` of them
    would have led; x: (B, K, H, A) at that time, noise at time 0.

    midpoint and heun are the second-order Runge-Kutta methods of those names.
    """
    times = torch.arange(skipped, steps, device=x.device) / steps
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
    """Denoises x (B, K, H, A) over falling noise; all solvers are functions of x alone.

    levels: cumulative signal levels of the steps, and 1.0 for the clean end. times: (S,) what the
    head is told. ddim: arXiv:2010.02502. dpmpp_2m: DPM-Solver++ 2M (arXiv:2211.01095, algorithm
    2), which draws the clean estimate on along the line through the last two; the step that ends
    without noise is DDIM's, as its length in log signal-to-noise is not finite. ancestral: DDPM's
    own sampler (arXiv:2006.11239), its new noise drawn from a generator that x itself seeds.
    """
    fresh = []
    if solver == "ancestral":
        fresh = [torch.Generator().manual_seed(_seed(chunks)) for chunks in x]
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
        spread = math.sqrt(1 - following)
        if solver == "ancestral" and following < 1.0:
            # Of the noise that is to be left, this much is new: the posterior's variance.
            new = (1 - following) / (1 - level) * (1 - level / following)
            drawn = torch.stack([torch.randn(x.shape[1:], generator=g) for g in fresh])
            x = math.sqrt(following) * target + math.sqrt(spread**2 - new) * noise
            x = x + math.sqrt(new) * drawn.to(x)
        else:
            x = math.sqrt(following) * target + spread * noise
    return x


def _seed(x: Tensor) -> int:
    """The same for the same noise on any machine."""
    return zlib.crc32(x.detach().cpu().float().numpy().tobytes())


def _log_snr(level: float) -> float:
    """Half the logarithm of signal over noise variance (lambda in the paper)."""
    return 0.5 * math.log(level / (1 - level))
