from __future__ import annotations

import torch

from ros_vla_accel.policies.moe import MixtureOfExperts, balance_loss


def mixture() -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(width=32, hidden=48, experts=8, experts_per_token=2).eval()


def test_routed_sum_equals_every_expert_computed_for_every_token() -> None:
    moe, x = mixture(), torch.randn(16, 32)
    logits = x @ moe.router.weight.T
    top, chosen = logits.topk(2)
    gates = torch.zeros(16, 8).scatter(1, chosen, top.softmax(-1))
    dense = torch.stack([expert(x) for expert in moe.experts], 1)
    expected = (gates.unsqueeze(-1) * dense).sum(1) + moe.shared(x)
    torch.testing.assert_close(moe(x), expected)


def test_branches_are_the_outputs_of_the_chosen_experts_before_their_gates() -> None:
    moe, x = mixture(), torch.randn(5, 32)
    routing = moe.route(x)
    branches = moe.branches(x, routing)
    for token in range(5):
        for place, expert in enumerate(routing.experts[token].tolist()):
            expected = moe.experts[expert](x[token])
            torch.testing.assert_close(branches[token, place], expected)


def test_gates_of_a_token_sum_to_one_and_fall_in_order() -> None:
    gates = mixture().route(torch.randn(64, 32)).gates
    torch.testing.assert_close(gates.sum(-1), torch.ones(64))
    assert (gates[:, 0] >= gates[:, 1]).all()


def test_balance_loss_is_one_when_experts_share_evenly_and_rises_when_they_do_not() -> None:
    moe = mixture()
    torch.nn.init.zeros_(moe.router.weight)
    even = moe.route(torch.randn(64, 32))
    skewed_router = torch.zeros(8, 32)
    skewed_router[0], skewed_router[1] = 9.0, 8.0
    moe.router.weight.data = skewed_router
    skewed = moe.route(torch.rand(64, 32))
    assert balance_loss(even).item() == torch.tensor(1.0)
    assert balance_loss(skewed) > 3


def test_every_expert_is_made_of_linear_layers_of_its_own() -> None:
    linear = [m for m in mixture().modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 1 + 2 * (8 + 1)
