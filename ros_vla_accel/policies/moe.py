"""Mixture of experts of the action head: routing, branches and combination as separate calls.

A branch is the pair (token, expert). Caching (arXiv:2606.15615) replaces ``branches`` by a
partial computation and keeps the other two; quantization replaces the ``nn.Linear`` modules,
of which every expert has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Routing:
    """Where each of N tokens goes.

    experts: (N, k) int64, the chosen experts, best first. gates: (N, k), their weights, summing
    to one per token. probabilities: (N, E), softmax over all experts (for the balance loss).
    """

    experts: Tensor
    gates: Tensor
    probabilities: Tensor


class Expert(nn.Module):
    """Two-layer perceptron of one expert: (rows, D) -> (rows, D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class MixtureOfExperts(nn.Module):
    """Top-k routed experts plus one shared expert: (N, D) -> (N, D).

    Gates are the softmax over the chosen experts' logits, so they sum to one. The shared expert
    sees every token with gate one.
    """

    def __init__(self, width: int, hidden: int, experts: int, experts_per_token: int) -> None:
        super().__init__()
        self.experts_per_token = experts_per_token
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, hidden) for _ in range(experts))
        self.shared = Expert(width, hidden)
        self.balance: Tensor | None = None

    def route(self, x: Tensor) -> Routing:
        """Chooses experts and gates for tokens x (N, D)."""
        logits = self.router(x).float()
        top, chosen = logits.topk(self.experts_per_token, dim=-1)
        return Routing(chosen, top.softmax(-1), logits.softmax(-1))

    def branches(self, x: Tensor, routing: Routing) -> Tensor:
        """Pre-gate outputs (N, k, D) of every routed branch."""
        tokens, chosen = routing.experts.shape
        flat = routing.experts.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(self.experts)).tolist()
        rows = x[order // chosen].split(counts)
        done = [expert(part) for expert, part in zip(self.experts, rows, strict=True) if len(part)]
        out = torch.empty(tokens * chosen, x.shape[-1], dtype=done[0].dtype, device=x.device)
        return out.index_copy(0, order, torch.cat(done)).view(tokens, chosen, -1)

    def combine(self, branches: Tensor, shared: Tensor, routing: Routing) -> Tensor:
        """Gated sum of branches (N, k, D) plus the shared expert's output (N, D)."""
        gates = routing.gates.to(branches.dtype).unsqueeze(1)
        return torch.bmm(gates, branches).squeeze(1) + shared

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(x)
        if self.training:
            self.balance = balance_loss(routing)
        return self.combine(self.branches(x, routing), self.shared(x), routing)


def balance_loss(routing: Routing) -> Tensor:
    """Load-balance loss (Switch Transformer, arXiv:2101.03961, eq. 4); 1 when all are equal."""
    experts = routing.probabilities.shape[-1]
    load = torch.bincount(routing.experts.reshape(-1), minlength=experts).float()
    return experts * (load / load.sum() * routing.probabilities.mean(0)).sum()
