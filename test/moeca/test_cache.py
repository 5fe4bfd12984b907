"""What enabling, running and disabling a cache does to a head."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from ros_vla_accel.moeca import (
    BranchCacheConfig,
    CostModel,
    FirstBlockConfig,
    ForaConfig,
    TaylorConfig,
    TokenCacheConfig,
    begin,
    disable_cache,
    enable_cache,
    fit_cost,
    summary,
)

METHODS = [
    BranchCacheConfig(budget=0.0, forecast=False),
    BranchCacheConfig(budget=0.3, attention="always"),
    BranchCacheConfig(budget=0.5, forecast=True),
    BranchCacheConfig(budget=0.5, routing="with_budget"),
    BranchCacheConfig(budget=0.0, routing="with_budget", attention="always"),
    ForaConfig(),
    TaylorConfig(order=1),
    TaylorConfig(order=2),
    TokenCacheConfig(),
    FirstBlockConfig(threshold=0.3),
]
EXACT = [
    BranchCacheConfig(budget=1.0),
    BranchCacheConfig(budget=1.0, attention="full_steps", forecast=True),
    BranchCacheConfig(budget=0.2, interval=1, forecast=False),
    ForaConfig(interval=1),
    TaylorConfig(interval=1),
    TokenCacheConfig(interval=1),
    FirstBlockConfig(threshold=0.0, interval=1),
]


@pytest.mark.parametrize("config", EXACT, ids=str)
def test_a_full_budget_is_bit_identical_to_no_cache(case, config) -> None:
    head, adapter, denoise = case
    exact = denoise(head, samples=2)
    enable_cache(head, config, adapter)
    assert torch.equal(denoise(head, samples=2), exact)
    assert summary(head).branch_reuse == 0


@pytest.mark.parametrize("config", METHODS, ids=str)
def test_every_method_saves_work_stays_near_and_leaves_no_trace(case, config) -> None:
    head, adapter, denoise = case
    exact = denoise(head)
    before = {name: dict(vars(module)) for name, module in head.named_modules()}
    enable_cache(head, config, adapter)
    found = denoise(head)
    report = summary(head)
    assert report.path_reuse > 0 or report.branch_reuse > 0
    assert not torch.equal(found, exact)
    assert (found - exact).abs().mean() < 0.5 * exact.abs().mean()
    disable_cache(head)
    assert {name: dict(vars(module)) for name, module in head.named_modules()} == before
    assert torch.equal(denoise(head), exact)


@pytest.mark.parametrize("config", METHODS, ids=str)
def test_an_inference_knows_nothing_of_those_before_it(case, config) -> None:
    head, adapter, denoise = case
    enable_cache(head, config, adapter)
    first = denoise(head, seed=1)
    denoise(head, seed=2, samples=3)
    assert torch.equal(denoise(head, seed=1), first)


@pytest.mark.parametrize("config", METHODS, ids=str)
def test_interleaved_inferences_keep_their_own_state(reference, denoise, config) -> None:
    """As two streams of a guidance pair, each with its own condition and session."""
    steps, x, contexts = 6, [], []
    enable_cache(reference, config)
    alone = [denoise(reference, seed=s, steps=steps) for s in (1, 2)]
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        contexts.append(torch.randn(1, 5, 48, generator=generator))
        x.append(torch.randn(1, 1, 16, 4, generator=generator))
    times = (torch.arange(steps) / steps).unsqueeze(0)
    conditions = [reference.condition(context, times) for context in contexts]
    sessions = [begin(reference, steps) for _ in x]
    for index in range(steps):
        for i, session in enumerate(sessions):
            with session.step(index):
                x[i] = x[i] + reference(x[i], conditions[i].step(index)) / steps
    assert torch.equal(x[0], alone[0])
    assert torch.equal(x[1], alone[1])


@pytest.mark.parametrize("config", [METHODS[0], *METHODS[5:8]], ids=str)
def test_a_batch_answers_as_its_parts_would_alone(reference, config) -> None:
    """A guidance pair in one batch: two conditions share steps, and no rows. So do samples."""
    steps, generator = 6, torch.Generator().manual_seed(3)
    context = torch.randn(2, 5, 48, generator=generator)
    context[1] = 0  # Without condition.
    noise = torch.randn(2, 2, 16, 4, generator=generator)
    enable_cache(reference, config)

    def run(context: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        times = (torch.arange(steps) / steps).expand(len(x), -1)
        conditioning = reference.condition(context, times)
        session = begin(reference, steps)
        for index in range(steps):
            with session.step(index):
                x = x + reference(x, conditioning.step(index)) / steps
        return x

    together = run(context, noise)
    assert not torch.allclose(together[0], together[1], atol=0.1)
    for half in (0, 1):
        for sample in (0, 1):
            alone = run(context[half : half + 1], noise[half : half + 1, sample : sample + 1])
            torch.testing.assert_close(together[half, sample], alone[0, 0])


@pytest.mark.parametrize("config", METHODS, ids=str)
def test_another_shape_or_type_starts_afresh(reference, config) -> None:
    enable_cache(reference, config)
    steps, context = 8, torch.randn(1, 5, 48)
    conditioning = reference.condition(context, (torch.arange(steps) / steps).unsqueeze(0))
    session = begin(reference, steps)
    small, large = torch.randn(1, 1, 16, 4), torch.randn(1, 3, 16, 4)
    with session.step(0):
        reference(small, conditioning.step(0))
    with session.step(1):
        found = reference(large, conditioning.step(1))
    assert torch.equal(found, reference(large, conditioning.step(1)))
    reference.bfloat16()
    conditioning = reference.condition(
        context.bfloat16(), (torch.arange(steps) / steps).unsqueeze(0)
    )
    with session.step(2):
        found = reference(large.bfloat16(), conditioning.step(2))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, reference(large.bfloat16(), conditioning.step(2)))


def test_calls_outside_of_a_session_are_exact(reference, denoise) -> None:
    x, conditioning = (
        torch.randn(1, 1, 16, 4),
        reference.condition(torch.randn(1, 5, 48), torch.zeros(1, 1)),
    )
    exact = reference(x, conditioning)
    enable_cache(reference)
    denoise(reference)
    assert torch.equal(reference(x, conditioning), exact)


@pytest.mark.parametrize("config", [METHODS[2], METHODS[6]], ids=str)
def test_a_compiled_head_stays_a_cached_one(reference, denoise, config) -> None:
    """Dynamo alone: what it traces, and what it guards, is what could bypass a cache."""
    enable_cache(reference, config)
    expected = denoise(reference, steps=4)
    before = summary(reference).counts
    counters.clear()
    try:
        reference.forward = torch.compile(reference.forward, backend="eager")
        torch.testing.assert_close(denoise(reference, steps=4), expected)
    finally:
        del reference.forward
        torch._dynamo.reset()
    assert counters["stats"]["unique_graphs"] > 0
    after = summary(reference).counts
    for name in ("branches_computed", "paths_computed", "full_steps"):
        assert getattr(after, name) == 2 * getattr(before, name)


def test_an_error_inside_a_step_forgets_the_state(reference) -> None:
    enable_cache(reference, ForaConfig())
    steps = 4
    conditioning = reference.condition(
        torch.randn(1, 5, 48), (torch.arange(steps) / steps).unsqueeze(0)
    )
    session, x = begin(reference, steps), torch.randn(1, 1, 16, 4)
    with session.step(0):
        reference(x, conditioning.step(0))
    with pytest.raises(KeyError), session.step(1):
        raise KeyError
    with session.step(2):
        found = reference(x, conditioning.step(2))
    assert torch.equal(found, reference(x, conditioning.step(2)))


def test_memory_is_reported_and_bounded(reference, denoise) -> None:
    enable_cache(reference, BranchCacheConfig())
    denoise(reference)
    peak = summary(reference).peak_bytes
    # Two tensors of 48 float32 for each of three branches of 16 tokens in four blocks, at least.
    assert peak > 2 * 4 * 48 * 3 * 16 * 4
    assert summary(reference).bytes == 0, "a finished inference holds nothing"
    disable_cache(reference)
    enable_cache(reference, BranchCacheConfig(max_bytes=peak // 2))
    exact_every_step = denoise(reference)
    assert summary(reference).bytes <= peak // 2
    assert summary(reference).counts.afresh == 8
    disable_cache(reference)
    assert torch.equal(exact_every_step, denoise(reference))


def test_the_least_recently_used_inference_makes_room(reference) -> None:
    enable_cache(reference, ForaConfig())
    conditioning = reference.condition(torch.randn(1, 5, 48), torch.zeros(1, 1))
    x = torch.randn(1, 1, 16, 4)
    sessions = [begin(reference, 2) for _ in range(3)]
    with sessions[0].step(0):
        reference(x, conditioning)
    one = summary(reference).bytes
    disable_cache(reference)
    enable_cache(reference, ForaConfig(max_bytes=2 * one))
    sessions = [begin(reference, 2) for _ in range(3)]
    for session in sessions:
        with session.step(0):
            reference(x, conditioning)
    assert [session.bytes for session in sessions] == [0, one, one]


def test_a_step_that_was_passed_is_refused(reference) -> None:
    enable_cache(reference)
    session = begin(reference, 4)
    with session.step(1):
        pass
    with (
        pytest.raises(ValueError, match=r"step 1 cannot follow step 1.*begin"),
        session.step(1),
    ):
        pass


def test_recording_gradients_is_refused(reference) -> None:
    enable_cache(reference)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        pytest.raises(RuntimeError, match="no backward pass"),
        begin(reference, 4).step(0),
    ):
        pass


def test_misuse_is_named_with_the_way_out(reference) -> None:
    with pytest.raises(ValueError, match="no cache; call enable_cache"):
        disable_cache(reference)
    with pytest.raises(TypeError, match="cache_adapter"):
        enable_cache(nn.Linear(2, 2))
    enable_cache(reference)
    with pytest.raises(ValueError, match="disable_cache"):
        enable_cache(reference)
    with pytest.raises(TypeError, match="disable_cache"):
        copy.deepcopy(reference)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: BranchCacheConfig(budget=1.5), "budget 1.5"),
        (lambda: BranchCacheConfig(attention="some"), "attention 'some'"),
        (lambda: BranchCacheConfig(routing="never"), "routing 'never'"),
        (lambda: BranchCacheConfig(forecast_order=3), "forecast_order 3"),
        (lambda: BranchCacheConfig(forecast_order=2), "forecast_order 2 is of whole mixtures"),
        (
            lambda: BranchCacheConfig(forecast_order=2, routing="with_budget", budget=0.5),
            "forecast_order 2 is of whole mixtures",
        ),
        (lambda: BranchCacheConfig(interval=0), "interval 0"),
        (lambda: TaylorConfig(order=3), "order 3"),
        (lambda: TokenCacheConfig(ratio=-1), "ratio -1"),
        (lambda: FirstBlockConfig(threshold=-1), "threshold -1"),
        (lambda: CostModel(-1), "costs -1"),
    ],
)
def test_configurations_are_validated(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_summary_reads_as_a_sentence_per_line(reference, denoise) -> None:
    enable_cache(reference)
    denoise(reference)
    text = str(summary(reference))
    assert "1 inferences, 8 steps, 3 full" in text
    assert "branches reused" in text


def test_prices_are_measured_on_this_machine(reference) -> None:
    cost = fit_cost(reference.cache_adapter(), 48, repeats=3)
    assert cost.fixed_rows >= 0
    assert cost.expert(0) == 0
    assert cost.expert(4) > cost.expert(1)
