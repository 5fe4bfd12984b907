"""Solvers against equations whose solutions are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ros_vla_accel.policies.objectives import DIFFUSION_STEPS, sample, signal_levels
from ros_vla_accel.policies.solvers import FLOW


class KnownHead(nn.Module):
    """Answers with a function of chunk and time instead of a network."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.times, self.calls = answer, None, 0

    def condition(self, context: Tensor, time: Tensor) -> KnownHead:
        self.times = time[0]
        return self

    def step(self, index: int) -> float:
        return float(self.times[index])

    def forward(self, x: Tensor, time: float) -> Tensor:
        self.calls += 1
        return self.answer(x, time)


BOUNDS = (torch.full((2,), -100.0), torch.full((2,), 100.0))


def solve(answer, objective: str, solver: str | None, steps: int) -> tuple[Tensor, int]:
    head = KnownHead(answer)
    noise = torch.full((1, 1, 3, 2), 0.7, dtype=torch.float64)
    context = torch.zeros(1, 1, 1, dtype=torch.float64)
    with torch.inference_mode():
        return sample(objective, head, context, noise, steps, BOUNDS, solver), head.calls


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_flow_solvers_converge_with_their_order(solver: str, order: int) -> None:
    def error(steps: int) -> float:
        # dx/dt = x cos t from 0.7, whose solution is 0.7 exp(sin t).
        found, calls = solve(lambda x, t: x * math.cos(t), "flow", solver, steps)
        assert calls == FLOW[solver] * steps
        return float((found - 0.7 * math.exp(math.sin(1))).abs().max())

    assert error(10) / error(20) == pytest.approx(2**order, rel=0.2)


def test_dpm_solver_errs_less_than_ddim_at_the_same_steps() -> None:
    """Data of variance 1/4 around zero: the best guess of the noise is linear in the chunk."""
    levels = signal_levels().double()

    def noise(x: Tensor, time: float) -> Tensor:
        level = levels[round(time * DIFFUSION_STEPS)]
        return x * (1 - level).sqrt() / (level / 4 + 1 - level)

    # Along the flow, a chunk keeps its place among the standard deviations of the data.
    start = float(levels[-1])
    exact = 0.7 * 0.5 / math.sqrt(start / 4 + 1 - start)
    errors = {}
    for solver in ("ddim", "dpmpp_2m"):
        found, calls = solve(noise, "ddpm", solver, 20)
        assert calls == 20
        errors[solver] = float((found - exact).abs().max())
    assert errors["dpmpp_2m"] < 0.7 * errors["ddim"]


def test_an_unknown_solver_is_named_with_those_of_the_objective() -> None:
    with pytest.raises(ValueError, match=r"solver 'ddim' is unknown.*'flow'.*euler"):
        solve(lambda x, t: x, "flow", "ddim", 2)


def test_the_ancestral_sampler_draws_from_the_data_and_repeats_itself() -> None:
    """Data of variance 1/4 around zero, whose best guess of the noise is known: the chunks that
    are drawn have that variance, and the same noise gives the same chunk."""
    levels = signal_levels().double()

    def noise(x: Tensor, time: float) -> Tensor:
        level = float(levels[round(time * DIFFUSION_STEPS)])
        return x * math.sqrt(1 - level) / (level / 4 + 1 - level)

    def draw(steps: int) -> Tensor:
        start = torch.randn(1, 1, 4000, 2, generator=torch.Generator().manual_seed(0)).double()
        context = torch.zeros(1, 1, 1, dtype=torch.float64)
        return sample("ddpm", KnownHead(noise), context, start, steps, BOUNDS, "ancestral")

    drawn = draw(100)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(drawn, draw(100))
