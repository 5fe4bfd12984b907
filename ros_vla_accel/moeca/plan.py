"""Where a step's budget goes: whole blocks first, then whole experts, then rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ros_vla_accel.moeca.cost import CostModel


@dataclass
class Plan:
    """The controller of one inference, over all blocks of its head.

    full_cost: per block, of its mixture at the last full step. worth: per block, staleness per
    squared step of age, as last observed (drift grows about linearly with age, and the score
    counts age again). refreshed: step of the block's last refresh. carry: what earlier steps left
    over or, for newly routed branches that had to be computed, owe.
    """

    blocks: int
    attention_cost: float
    full_cost: list[float] = field(init=False)
    worth: list[float] = field(init=False)
    refreshed: list[int] = field(init=False)
    share: list[float] = field(init=False)
    carry: float = 0.0
    index: int = -1

    def __post_init__(self) -> None:
        self.full_cost = [0.0] * self.blocks
        self.worth = [1.0] * self.blocks
        self.refreshed = [0] * self.blocks
        self.share = [0.0] * self.blocks

    def start(self, index: int, budget: float) -> None:
        """Shares out the budget of a step that is not full, stalest block first."""
        if index == self.index:
            return
        self.index = index
        whole = [self.attention_cost + cost for cost in self.full_cost]
        # Debt may not grow without end: a step after which nothing is owed must come.
        left = budget * sum(whole) + max(self.carry, -sum(whole))
        self.carry = 0.0
        ages = [index - step for step in self.refreshed]
        rank = sorted(range(self.blocks), key=lambda b: -self.worth[b] * ages[b] ** 2)
        for block in rank:
            self.share[block] = min(whole[block], max(left, 0.0))
            left -= self.share[block]
        self.carry = left

    def whole(self, block: int) -> bool:
        """Whether the budget covers the block's attention and its whole mixture."""
        cost = self.attention_cost + self.full_cost[block]
        return cost > 0 and self.share[block] >= cost * (1 - 1e-9)

    def allowance(self, block: int) -> float:
        """What the block's mixture may cost."""
        return self.share[block] - (self.attention_cost if self.whole(block) else 0.0)


def choose_rows(
    values: Sequence[float],
    rows: Sequence[float],
    new: Sequence[float],
    allowance: float,
    cost: CostModel,
) -> tuple[list[int], float]:
    """How many branches of each expert to compute, newly routed ones included, and their cost.

    values: staleness of each expert's branches in total; rows: how many it has; new: how many of
    them must be computed. Experts are served whole in the order of value per cost, where one that
    is read for a new branch anyway costs its rows alone. The first that no longer fits gets the
    rows that do, if they outweigh reading its weights; else the remainder is left unspent.
    """
    chosen = [round(n) for n in new]
    spent = sum(cost.expert(n) for n in chosen)
    left = allowance - spent
    extra = [cost.expert(r) - cost.expert(n) for r, n in zip(rows, new, strict=True)]
    wanted = [e for e in range(len(rows)) if extra[e] > 0 and values[e] > 0]
    for expert in sorted(wanted, key=lambda e: -values[e] / extra[e]):
        if extra[expert] <= left * (1 + 1e-9):
            chosen[expert], price = round(rows[expert]), extra[expert]
        else:
            fixed = 0.0 if chosen[expert] else cost.fixed_rows
            part = int(left - fixed)
            if part <= fixed or part < 1:
                continue
            chosen[expert] += part
            price = fixed + part
        left -= price
        spent += price
    return chosen, spent
