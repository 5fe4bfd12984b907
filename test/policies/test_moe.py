from __future__ import annotations

import torch

from ros_vla_accel.policies.moe import MixtureOfExperts, Routing, balance_loss


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
    gates = torch.full((8, 2), 0.5)
    everyone = torch.arange(16).remainder(8).view(8, 2)
    even = Routing(everyone, gates, torch.full((8, 8), 1 / 8))
    probabilities = torch.tensor([0.7, 0.3, 0, 0, 0, 0, 0, 0]).expand(8, 8)
    skewed = Routing(torch.tensor([0, 1]).expand(8, 2), gates, probabilities)
    torch.testing.assert_close(balance_loss(even), torch.tensor(1.0))
    # Half of the branches on each of two experts: 8 * (0.5 * 0.7 + 0.5 * 0.3).
    torch.testing.assert_close(balance_loss(skewed), torch.tensor(4.0))


def test_every_expert_is_made_of_linear_layers_of_its_own() -> None:
    linear = [m for m in mixture().modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 1 + 2 * (8 + 1)
