"""The reference policy on exported graphs: a ``contracts.Policy`` like the one in torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ros_vla_accel.contracts import ACTIVATION_BITS, executed_width
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import DYNAMIC, PRECISIONS, EngineManifest
from ros_vla_accel.engines.session import Engine, GraphSession
from ros_vla_accel.engines.stages import GRAPHS
from ros_vla_accel.policies.checkpoint import Manifest
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.objectives import sample
from ros_vla_accel.policies.reference_policy import ReferencePolicy

log = logging.getLogger(__name__)
_TYPES = {"float": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Held:
    """Keys, values and modulations of one inference, bound to the step's session; and which step
    is next. The place of ``head.Conditioning`` in the solvers."""

    index: int = 0

    def step(self, index: int) -> Held:
        return Held(index)


class EngineHead:
    """``head.ActionHead``'s two calls, as the solvers make them: one ``condition`` per inference,
    then one session run per denoising step on tensors bound beforehand."""

    def __init__(self, condition: GraphSession, step: GraphSession, device: torch.device) -> None:
        self._condition, self._step, self._device = condition, step, device
        self._held: dict[str, Tensor] = {}
        self._index = torch.zeros((), dtype=torch.int64, device=device)
        self._noisy = self._out = torch.empty(0)
        self._kept: tuple[Tensor, ...] = ()
        step.bind("index", self._index)

    def sized(self, batch: int, steps: int, shapes: dict[str, tuple[int, ...]]) -> None:
        """Storage of what ``condition`` hands to ``step``, made anew only for another size."""
        if self._held and self._held["modulation_out"].shape[:2] == (batch, steps):
            return
        for name, kind in self._condition.outputs.items():
            self._held[name] = torch.empty(
                shapes[name], dtype=_TYPES[kind], device=self._device
            )
            self._condition.bind(name, self._held[name])
            self._step.bind(name, self._held[name])

    def condition(self, context: Tensor, time: Tensor) -> Held:
        self._kept = (context.contiguous(), time[0].float().contiguous())
        self._condition.bind("context", self._kept[0])
        self._condition.bind("times", self._kept[1])
        self._condition.run()
        return Held()

    def __call__(self, actions: Tensor, held: Held) -> Tensor:
        if self._noisy.shape != actions.shape:
            self._noisy, self._out = torch.empty_like(actions), torch.empty_like(actions)
            self._step.bind("noisy", self._noisy)
            self._step.bind("velocity", self._out)
        self._noisy.copy_(actions)
        self._index.fill_(held.index)
        self._step.run()
        # Solvers of second order hold two of them at a time.
        return self._out.clone()


class _Variant:
    """The four sessions of one precision."""

    def __init__(
        self, engine: Engine, precision: str, shapes: Callable[..., dict[str, tuple[int, ...]]]
    ) -> None:
        self.vision, self.backbone, condition, step = (
            engine.session(precision, graph) for graph in GRAPHS
        )
        self.head = EngineHead(condition, step, torch.device(engine.device))


class EngineModel:
    """``model.ReferenceVLA``'s three calls on an engine; the precision is that of the width which
    ``inference`` opened."""

    def __init__(self, engine: Engine, manifest: EngineManifest, precisions: Sequence[str]) -> None:
        ...
