"""MoECa's branch cache (arXiv:2606.15615): what is reused is one expert's output for one token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ros_vla_accel.moeca.across import Remembered
from ros_vla_accel.moeca.adapter import HeadAdapter, MoELayer, Routes
from ros_vla_accel.moeca.config import BranchCacheConfig
from ros_vla_accel.moeca.forecast import Forecast, run_held
from ros_vla_accel.moeca.held_branches import HeldBranches
from ros_vla_accel.moeca.plan import Plan, choose_rows
from ros_vla_accel.moeca.session import Step, signature


class BranchCache:
    """Runs the mixtures, and by its plan the attention, of one head; state is the session's."""

    def __init__(self, head: HeadAdapter, config: BranchCacheConfig) -> None:
        self.config = config
        self.layers = [block.layer for block in head.blocks]
        together = config.attention == "with_moe"
        self._attention_cost = config.cost.attention_rows if together else 0.0

    def _plan(self, step: Step) -> Plan:
        plan = step.state.get("plan")
        if plan is None:
            plan = step.state["plan"] = Plan(len(self.layers), self._attention_cost)
        if not step.full:
            plan.start(step.index, self.config.budget)
        return plan

    def attention(
        self,
        block: int,
        place: int,
        step: Step,
        original: Callable[..., Tensor],
        x: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """An attention path: whole or not at all."""
        full = step.full
        if not full and self.config.attention == "with_moe":
            full = self._plan(step).whole(block)
        order = int(self.config.forecast)
        key = (block, place)
        return run_held(key, order, step, original, x, *args, full=full, **kwargs)

    def path(
        self,
        block: int,
        step: Step,
        original: Callable[..., Tensor],
        x: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The path around a mixture, whose own call is replaced as well: drawn on whole where the
        budget does not reach the block, so that not even its norm is computed."""
        plan = self._plan(step)
        whole: Forecast | None = step.state.get((block, "whole"))
        held: HeldBranches | None = step.state.get(block)
        shape = (block, "signature")
        known = step.state.get(shape) == signature(x)
        unpaid = plan.allowance(block) < self.config.cost.fixed_rows and not plan.whole(block)
        if whole is not None and held is not None and known and not step.full and unpaid:
            plan.carry += plan.allowance(block)
            used = self.layers[block].experts + self.layers[block].shared
            _count(step, len(held.token), 0, used, 0)
            return whole.at(step.index)
        value, order = original(x, *args, **kwargs), int(self.config.forecast)
        step.state[shape] = signature(x)
        step.state[block, "whole"] = (
            whole.follow(step.index, value, order)
            if whole is not None and known
            else Forecast(step.index, (value,))
        )
        return value

    def mixture(
        self, block: int, step: Step, original: Callable[..., Tensor], x: Tensor
    ) -> Tensor:
        """The mixture on tokens x (..., D), with the gates of this step."""
        layer, plan = self.layers[block], self._plan(step)
        held: HeldBranches | None = step.state.get(block)
        if held is not None and held.known != signature(x):
            held = None
        last = step.index == step.steps - 1 and not self.config.across
        if held is not None and step.full and last:
            # Nothing comes after that could reuse it.
            used = layer.experts + layer.shared
            _count(step, len(held.token), len(held.token), used, used)
            return original(x)
        rows = x.reshape(-1, x.shape[-1])
        routes = layer.route(rows)
        if held is None:
            held = self._start(block, layer, routes, rows, step, plan, signature(x))
        else:
            new = held.follow(routes.experts)
            allowance = plan.allowance(block)
            if step.full or plan.whole(block):
                self._compute_all(block, layer, held, new, rows, step, plan)
            elif allowance >= self.config.cost.fixed_rows:
                self._compute_some(block, layer, held, new, routes, rows, step, plan, allowance)
            else:
                self._compute_new(layer, held, new, rows, step, plan, allowance)
        outputs = held.outputs
        if held.slopes is not None and not step.full:
            age = (step.index - held.at).unsqueeze(1).to(outputs.dtype)
            outputs = torch.addcmul(outputs, held.slopes, age)
        tokens, k = routes.experts.shape
        routed = outputs[: tokens * k].view(tokens, k, -1)
        shared = outputs[tokens * k :].view(layer.shared, tokens, -1)
        return layer.combine(routed, shared, routes).view_as(x)

    def _start(
        self,
        block: int,
        layer: MoELayer,
        routes: Routes,
        rows: Tensor,
        step: Step,
        plan: Plan,
        known: tuple[Any, ...],
    ) -> HeldBranches:
        tokens, k = routes.experts.shape
        device, every = rows.device, torch.arange(len(rows), device=rows.device)
        token = torch.cat([every.repeat_interleave(k), every.repeat(layer.shared)])
        kinds = torch.arange(layer.shared, device=device) + layer.experts
        experts = torch.cat([routes.experts.reshape(-1), kinds.repeat_interleave(tokens)])
        outputs, counts, computed = self._every(block, layer, experts, token, rows, step)
        held = HeldBranches(
            known,
            routes.experts.tolist(),
            experts,
            token,
            outputs,
            rows[token],
            torch.full((len(token),), float(step.index), device=device),
            torch.zeros_like(outputs) if self.config.forecast else None,
            torch.ones(layer.experts + layer.shared, device=device),
        )
        step.state[block] = held
        self._refreshed(block, step, plan, counts, computed)
        return held

    def _every(
        self,
        block: int,
        layer: MoELayer,
        experts: Tensor,
        token: Tensor,
        rows: Tensor,
        step: Step,
    ) -> tuple[Tensor, list[int], list[int]]:
        """Outputs (M, D) of all branches, how many each expert has, and how many were computed:
        all of them, but for those that the inference before has to offer."""
        order, counts = _by_expert(layer, experts)
        if not self.config.across:
            done = _run(layer, rows[token[order]], counts)
            return torch.empty_like(done).index_copy_(0, order, done), counts, counts
        place = (block, "across", step.index)
        inputs = origin = rows[token]
        routing = experts[: len(experts) - layer.shared * len(rows)].view(len(rows), -1)
        before: Remembered | None = step.before.get(place)
        outputs, computed = torch.empty_like(inputs), counts
        if before is not None and before.known == signature(rows):
            source, reused = before.match(routing, inputs, self.config.across)
            outputs, origin = before.outputs[source], before.inputs[source]
            order = order[~reused[order]]
            numbers = layer.experts + layer.shared
            computed = torch.bincount(experts[order], minlength=numbers).tolist()
        if any(computed):
            part = inputs[order]
            outputs.index_copy_(0, order, _run(layer, part, computed))
            origin = origin.index_copy(0, order, part)
        step.state[place] = Remembered(signature(rows), routing.clone(), outputs.clone(), origin)
        return outputs, counts, computed

    def _compute_all(
        self,
        block: int,
        layer: MoELayer,
        held: HeldBranches,
        new: list[int],
        rows: Tensor,
        step: Step,
        plan: Plan,
    ) -> None:
        """Every branch, as without a cache; what it teaches is kept where it will be asked for."""
        outputs, counts, computed = self._every(block, layer, held.experts, held.token, rows, step)
        inputs = None
        if 0 < self.config.budget < 1:
            inputs = rows[held.token]
            drift = (inputs - held.inputs).norm(dim=1).float()
            held.learn(outputs, drift, new)
            age = max(step.index - plan.refreshed[block], 1)
            plan.worth[block] = float((drift * held.rates[held.experts]).sum()) / age
        held.replace(outputs, inputs, step.index, new)
        if not step.full:
            plan.carry += plan.allowance(block) - plan.full_cost[block]
        self._refreshed(block, step, plan, counts, computed)

    def _compute_some(
        self,
        block: int,
        layer: MoELayer,
        held: HeldBranches,
        new: list[int],
        routes: Routes,
        rows: Tensor,
        step: Step,
        plan: Plan,
        allowance: float,
    ) -> None:
        """Experts and rows that are stale for their cost, within the block's allowance."""
        numbers, inputs = layer.experts + layer.shared, rows[held.token]
        drift = (inputs - held.inputs).norm(dim=1).float()
        gates = torch.ones(len(held.token), device=rows.device)
        gates[: routes.gates.numel()] = routes.gates.reshape(-1).float()
        # gate x drift x age of the paper, in units of output by each expert's rate of change.
        score = gates * drift * (step.index - held.at) * held.rates[held.experts]
        fresh = None
        if new:
            fresh = torch.zeros(len(score), dtype=torch.bool, device=rows.device)
            fresh[torch.tensor(new, device=rows.device)] = True
        counted = [torch.ones_like(score), score]
        if fresh is not None:
            counted = [counted[0], score.masked_fill(fresh, 0.0), fresh.float()]
            score = score.masked_fill(fresh, float("inf"))
        sums = torch.zeros(numbers, len(counted), device=rows.device)
        sums.index_add_(0, held.experts, torch.stack(counted, dim=1))
        counts, values, *due = sums.T.tolist()
        wanted, spent = choose_rows(
            values, counts, due[0] if due else [0.0] * numbers, allowance, self.config.cost
        )
        plan.carry += allowance - spent
        plan.worth[block] = sum(values) / max(step.index - plan.refreshed[block], 1) ** 2
        if any(wanted):
            order = _stalest(held.experts, score, counts, wanted)
            part = inputs[order]
            outputs = _run(layer, part, wanted)
            held.store(order, outputs, part, step.index, None if fresh is None else fresh[order])
        used, read = sum(n > 0 for n in counts), sum(n > 0 for n in wanted)
        _count(step, len(held.token), sum(wanted), used, read)

    def _compute_new(
        self,
        layer: MoELayer,
        held: HeldBranches,
        new: list[int],
        rows: Tensor,
        step: Step,
        plan: Plan,
        allowance: float,
    ) -> None:
        """Newly routed branches only; without any, not even the scores are looked at."""
        counts = [0] * (layer.experts + layer.shared)
        if new:
            k = len(held.routing[0])
            for branch in new:
                counts[held.routing[branch // k][branch % k]] += 1
            order = torch.tensor(new, device=rows.device)
            part = rows[held.token[order]]
            held.start(order, _run(layer, part, counts), part, step.index)
        plan.carry += allowance - sum(self.config.cost.expert(n) for n in counts)
        _count(step, len(held.token), len(new), len(counts), sum(n > 0 for n in counts))

    def _refreshed(
        self, block: int, step: Step, plan: Plan, counts: list[int], computed: list[int]
    ) -> None:
        plan.refreshed[block] = step.index
        plan.full_cost[block] = sum(self.config.cost.expert(n) for n in counts)
        used, read = sum(n > 0 for n in counts), sum(n > 0 for n in computed)
        _count(step, sum(counts), sum(computed), used, read)


def _by_expert(layer: MoELayer, experts: Tensor) -> tuple[Tensor, list[int]]:
    """Branches in the order of their experts, then of tokens, and how many each expert has."""
    counts = torch.bincount(experts, minlength=layer.experts + layer.shared).tolist()
    return experts.argsort(stable=True), counts


def _stalest(experts: Tensor, score: Tensor, counts: list[float], wanted: list[int]) -> Tensor:
    """By expert, those ``wanted`` branches of each that score most, in order of token."""
    order = experts.argsort(stable=True)
    parts = []
    for rows, most in zip(order.split([round(n) for n in counts]), wanted, strict=True):
        if most == len(rows):
            parts.append(rows)
        elif most:
            parts.append(rows[score[rows].topk(most).indices.sort().values])
    return torch.cat(parts)


def _run(layer: MoELayer, rows: Tensor, counts: list[int]) -> Tensor:
    """Runs every expert on its part of rows, which lie by expert. Others' weights stay unread."""
    parts = rows.split(counts)
    return torch.cat([layer.run(e, part) for e, part in enumerate(parts) if len(part)])


def _count(step: Step, rows: int, computed: int, used: int, read: int) -> None:
    step.counts.branches += rows
    step.counts.branches_computed += computed
    step.counts.experts += used
    step.counts.experts_computed += read
