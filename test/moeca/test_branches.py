"""MoECa's promises: what is computed, with which gates, at what price."""

from __future__ import annotations

import pytest
import torch

from ros_vla_accel.moeca import (
    BranchCacheConfig,
    CostModel,
    TaylorConfig,
    begin,
    disable_cache,
    enable_cache,
    summary,
)
from ros_vla_accel.moeca.held_branches import HeldBranches
from ros_vla_accel.moeca.plan import Plan, choose_rows
from ros_vla_accel.policies.moe import Expert
from ros_vla_accel.quantization import quantize_
from ros_vla_accel.quantization.config import W4AX

CONFIGS = [
    BranchCacheConfig(budget=budget, attention=attention, forecast=forecast)
    for budget, attention, forecast in (
        (0.0, "with_moe", False),
        (0.3, "with_moe", True),
        (0.3, "full_steps", False),
        (0.7, "always", True),
    )
]
CONFIGS += [BranchCacheConfig(budget=budget, routing="with_budget") for budget in (0.2, 0.4)]


def count_rows(head: torch.nn.Module) -> list[int]:
    """Rows that pass through experts from now on, appended per call."""
    rows: list[int] = []
    for module in head.modules():
        if isinstance(module, Expert):
            module.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    return rows


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_reuse_ratio_is_that_of_rows_really_computed(reference, denoise, config) -> None:
    rows = count_rows(reference)
    denoise(reference)
    every = sum(rows)
    rows.clear()
    enable_cache(reference, config)
    denoise(reference)
    report = summary(reference)
    assert sum(rows) < every
    assert report.counts.branches == every
    assert report.counts.branches_computed == sum(rows)
    assert report.counts.experts_computed >= len(rows)


def test_a_reused_branch_is_weighed_with_the_gate_of_this_step(reference) -> None:
    enable_cache(reference, BranchCacheConfig(budget=0.0, attention="always"))
    moe = reference.blocks[0].moe
    session = begin(reference, 8)
    x = torch.randn(16, 48)
    with session.step(0):
        moe(x)
    before = moe.route(x)
    branches, shared = moe.branches(x, before), moe.shared(x)
    moved = 1.05 * x  # Sharpens the gates and leaves every token at its experts.
    now = moe.route(moved)
    assert torch.equal(now.experts, before.experts)
    assert not torch.equal(now.gates, before.gates)
    with session.step(1):
        found = moe(moved)
    torch.testing.assert_close(found, moe.combine(branches, shared, now))


def test_a_newly_routed_branch_is_computed_without_any_budget(reference) -> None:
    enable_cache(reference, BranchCacheConfig(budget=0.0, attention="always"))
    moe = reference.blocks[0].moe
    session = begin(reference, 8)
    x = torch.randn(16, 48)
    with session.step(0):
        moe(x)
    moved = x.clone()
    moved[3] = -x[3]  # Prefers the experts that it liked least.
    old, now = moe.route(x), moe.route(moved)
    assert not set(old.experts[3].tolist()) & set(now.experts[3].tolist())
    rows = count_rows(reference)
    with session.step(1):
        found = moe(moved)
    assert sum(rows) == 2
    expected = moe.branches(moved, now)
    kept = moe.branches(x, old)
    kept[3] = expected[3]
    torch.testing.assert_close(found, moe.combine(kept, moe.shared(x), now))


def test_branches_follow_their_experts_when_these_change_places() -> None:
    def held() -> HeldBranches:
        number = torch.arange(4.0)
        return HeldBranches(
            (),
            [[0, 1], [2, 3]],
            torch.tensor([0, 1, 2, 3]),
            torch.tensor([0, 0, 1, 1]),
            number.unsqueeze(1),
            10 * number.unsqueeze(1),
            100 * number,
            None,
            torch.ones(5),
        )

    state = held()
    assert state.follow(torch.tensor([[0, 1], [2, 3]])) == []
    assert state.follow(torch.tensor([[1, 0], [3, 4]])) == [3]
    assert state.outputs[:3, 0].tolist() == [1, 0, 3]
    assert state.inputs[:3, 0].tolist() == [10, 0, 30]
    assert state.at[:3].tolist() == [100, 0, 300]
    assert state.experts.tolist() == [1, 0, 3, 4]


def test_a_larger_budget_computes_more_and_errs_less(reference, denoise) -> None:
    exact = torch.cat([denoise(reference, seed=s, steps=12) for s in range(4)])
    computed, errors = [], []
    for budget in (0.0, 0.5, 0.9):
        enable_cache(
            reference,
            BranchCacheConfig(budget=budget, interval=6, full_last=False, forecast=False),
        )
        found = torch.cat([denoise(reference, seed=s, steps=12) for s in range(4)])
        computed.append(summary(reference).counts.branches_computed)
        errors.append(float((found - exact).abs().mean()))
        disable_cache(reference)
    assert computed == sorted(computed)
    assert errors[0] > errors[1] > errors[2]


def test_the_budget_is_kept_over_the_steps_between_full_ones(reference, denoise) -> None:
    """Without newly routed branches to pay for, 30 % of the price is spent and not more."""
    cost = CostModel(fixed_rows=4.0, attention_rows=0.0)
    config = BranchCacheConfig(
        budget=0.3, interval=100, full_last=False, attention="full_steps", cost=cost
    )
    enable_cache(reference, config)
    denoise(reference, steps=41, samples=2)
    counts = summary(reference).counts
    branches = counts.branches / 41
    share = (counts.branches_computed - branches) / (counts.branches - branches)
    assert 0.15 < share < 0.45


def test_attention_runs_as_its_policy_says(reference, denoise) -> None:
    reuse = {}
    for attention in ("always", "full_steps", "with_moe"):
        calls: list[int] = []
        hook = reference.blocks[0].attention.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        enable_cache(reference, BranchCacheConfig(budget=0.5, attention=attention))
        denoise(reference)
        disable_cache(reference)
        hook.remove()
        reuse[attention] = len(calls)
    assert reuse["always"] == 8
    assert reuse["full_steps"] == 3
    assert 3 < reuse["with_moe"] < 8


def test_a_cache_works_on_packed_experts(reference, denoise) -> None:
    quantize_(
        reference,
        W4AX(group_size=64),
        lambda module, name: ".experts." in name and isinstance(module, torch.nn.Linear),
    )
    packed = denoise(reference)
    enable_cache(reference, BranchCacheConfig(budget=1.0))
    assert torch.equal(denoise(reference), packed)
    disable_cache(reference)
    enable_cache(reference, BranchCacheConfig(budget=0.3))
    assert (denoise(reference) - packed).abs().mean() < 0.5 * packed.abs().mean()
    assert summary(reference).branch_reuse > 0.2


COST = CostModel(fixed_rows=8.0)


def test_whole_experts_are_served_in_the_order_of_value_for_cost() -> None:
    # Prices 8 + rows: 12, 12, 12; the second and third are worth most.
    chosen, spent = choose_rows([1, 9, 5], [4, 4, 4], [0, 0, 0], 24.0, COST)
    assert chosen == [0, 4, 4]
    assert spent == 24


def test_a_remainder_that_does_not_outweigh_reading_the_weights_is_left() -> None:
    assert choose_rows([1.0], [64], [0], 14.0, COST) == ([0], 0.0)
    assert choose_rows([1.0], [64], [0], 30.0, COST) == ([22], 30.0)


def test_an_expert_that_is_read_for_a_new_branch_sells_its_other_rows_cheaply() -> None:
    chosen, spent = choose_rows([3.0, 1.0], [8, 8], [0, 1], 9.0 + 7.0, COST)
    assert chosen == [0, 8]
    assert spent == 16


def test_new_branches_are_computed_whatever_they_cost() -> None:
    assert choose_rows([0.0, 0.0], [4, 4], [1, 2], 0.0, COST) == ([1, 2], 19.0)


def test_the_stalest_blocks_get_the_budget_and_take_turns() -> None:
    plan = Plan(4, attention_cost=10.0)
    plan.full_cost = [30.0] * 4
    turns = []
    for index in range(1, 9):
        plan.start(index, 0.25)
        whole = [block for block in range(4) if plan.whole(block)]
        turns += whole
        for block in whole:
            assert plan.allowance(block) == 30.0
            plan.refreshed[block] = index
    assert sorted(turns) == sorted([0, 1, 2, 3] * 2)


def test_a_debt_for_new_branches_is_paid_by_later_steps() -> None:
    plan = Plan(2, attention_cost=0.0)
    plan.full_cost = [20.0, 20.0]
    plan.carry = -10.0
    plan.start(1, 0.5)
    assert sum(plan.share) == 10.0


@pytest.mark.parametrize("order", [1, 2])
def test_mixtures_without_any_budget_are_drawn_on_whole_as_taylorseer_does(
    reference, denoise, order: int
) -> None:
    enable_cache(reference, TaylorConfig(interval=3, order=order))
    expected = denoise(reference)
    disable_cache(reference)
    lazy = BranchCacheConfig(
        budget=0.0, interval=3, routing="with_budget", forecast_order=order, full_last=False
    )
    enable_cache(reference, lazy)
    assert torch.equal(denoise(reference), expected)
    assert summary(reference).reuse == summary(reference).path_reuse > 0.5


def test_only_blocks_that_the_budget_reaches_are_routed(reference, denoise) -> None:
    def routings(routing: str) -> int:
        calls = []
        hooks = [
            block.moe.router.register_forward_hook(lambda *_: calls.append(1))
            for block in reference.blocks
        ]
        enable_cache(reference, BranchCacheConfig(budget=0.4, interval=4, routing=routing))
        denoise(reference)
        disable_cache(reference)
        for hook in hooks:
            hook.remove()
        return len(calls)

    always, lazy = routings("always"), routings("with_budget")
    assert 0.3 * always < lazy < 0.9 * always
