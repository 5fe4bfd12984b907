"""Branches that an inference takes from the one before it."""

from __future__ import annotations

import pytest
import torch

from ros_vla_accel.moeca import (
    BranchCacheConfig,
    begin,
    disable_cache,
    enable_cache,
    following,
    forget,
    summary,
)

STEPS = 6
EVERY = BranchCacheConfig(budget=1.0, across=0.3)


def inputs(moved: float = 0.0, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Context and noise; the same but for how far the observation moved."""
    generator = torch.Generator().manual_seed(0)
    context, noise = (
        torch.randn(batch, n, *rest, generator=generator) for n, *rest in ((5, 48), (1, 16, 4))
    )
    return context + moved * torch.randn(context.shape, generator=generator), noise


def denoise(head, context, x, stream=None, steps=STEPS):
    conditioning = head.condition(context, (torch.arange(steps) / steps).expand(len(x), -1))
    if stream is None:
        session = begin(head, steps)
    else:
        with following(head, stream):
            session = begin(head, steps)
    for index in range(steps):
        with session.step(index):
            x = x + head(x, conditioning.step(index)) / steps
    return x


def computed(head) -> int:
    return summary(head).counts.branches_computed


@pytest.mark.parametrize(
    "config",
    [EVERY, BranchCacheConfig(budget=0.3, interval=3, across=0.3)],
    ids=["every step full", "within an inference, too"],
)
def test_a_scene_that_stands_still_is_computed_once(reference, config) -> None:
    enable_cache(reference, config)
    first = denoise(reference, *inputs(), "robot 1")
    before = computed(reference)
    again = denoise(reference, *inputs(), "robot 1")
    torch.testing.assert_close(again, first)
    full = summary(reference).counts
    assert computed(reference) - before < 0.3 * before
    assert full.branches > 2 * before - 1


def test_a_small_move_reuses_some_and_errs_little(reference) -> None:
    still, exact = (denoise(reference, *inputs(moved)) for moved in (0.0, 0.1))
    enable_cache(reference, EVERY)
    denoise(reference, *inputs(), "robot 1")
    before = computed(reference)
    found = denoise(reference, *inputs(0.1), "robot 1")
    assert 0 < computed(reference) - before < 0.7 * before
    assert (found - exact).abs().mean() < (still - exact).abs().mean()


def test_under_other_noise_next_to_nothing_is_reused(reference) -> None:
    context, noise = inputs()
    exact = denoise(reference, context, -noise)
    enable_cache(reference, EVERY)
    denoise(reference, context, noise, "robot 1")
    before = computed(reference)
    found = denoise(reference, context, -noise, "robot 1")
    assert computed(reference) - before > 0.95 * before
    assert (found - exact).abs().max() < 0.01


def test_small_moves_do_not_add_up(reference) -> None:
    """Each is within the limit, their sum is not: what was computed at the start has gone."""
    context, noise = inputs()
    far = inputs(5.0)[0]
    enable_cache(reference, EVERY)
    for share in torch.linspace(0, 1, 40):
        found = denoise(reference, context + share * (far - context), noise, "robot 1")
    assert summary(reference).branch_reuse > 0.3
    disable_cache(reference)
    exact = denoise(reference, far, noise)
    stale = denoise(reference, context, noise)
    assert (found - exact).abs().mean() < 0.2 * (stale - exact).abs().mean()


@pytest.mark.parametrize("other", ["stream", "steps", "shape", "none", "forgotten", "type"])
def test_nothing_is_taken_from_what_does_not_go_before(reference, other: str) -> None:
    exact = denoise(reference, *inputs())
    enable_cache(reference, EVERY)
    context, noise = inputs()
    if other == "shape":
        denoise(reference, *inputs(batch=2), "robot 1")
    elif other == "type":
        reference.bfloat16()
        denoise(reference, context.bfloat16(), noise.bfloat16(), "robot 1")
        reference.float()
        exact = None
    elif other == "none":
        denoise(reference, context, noise)
    else:
        stream = "robot 2" if other == "stream" else "robot 1"
        denoise(reference, context, noise, stream, 4 if other == "steps" else STEPS)
    if other == "forgotten":
        forget(reference)
    before = summary(reference).counts
    found = denoise(reference, context, noise, "robot 1")
    after = summary(reference).counts
    assert after.branches_computed - before.branches_computed == after.branches - before.branches
    if exact is not None:
        torch.testing.assert_close(found, exact)


def test_what_is_kept_is_counted_and_bounded(reference) -> None:
    enable_cache(reference, EVERY)
    for _ in range(5):
        denoise(reference, *inputs(), "robot 1")
    # Of six steps and four blocks, 48 branches with output and input of 48 entries each.
    assert summary(reference).bytes < 1.1 * STEPS * 4 * 48 * (2 * 48 * 4 + 8)
    forget(reference)
    assert summary(reference).bytes == 0
    disable_cache(reference)
    enable_cache(reference, BranchCacheConfig(budget=1.0, across=0.3, max_bytes=1000))
    exact = denoise(reference, *inputs(), "robot 1")
    assert torch.equal(denoise(reference, *inputs(), "robot 1"), exact)
    assert summary(reference).branch_reuse == 0
    assert summary(reference).bytes <= 1000


def test_senseless_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"across 1\.0 must lie"):
        BranchCacheConfig(across=1.0)
    with pytest.raises(ValueError, match="across needs branches"):
        BranchCacheConfig(across=0.2, routing="with_budget")
