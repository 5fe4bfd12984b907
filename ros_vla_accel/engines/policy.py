"""The reference policy on exported graphs: a ``contracts.Policy`` like the one in torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ros_vla_accel.contracts import (
    ACTIVATION_BITS,
    ActionChunk,
    InferenceRequest,
    Observation,
    executed_width,
)
from ros_vla_accel.engines.errors import EngineError
from ros_vla_accel.engines.manifest import PRECISIONS, STATIC, EngineManifest
from ros_vla_accel.engines.session import Engine, GraphSession
from ros_vla_accel.engines.stages import GRAPHS, signature
from ros_vla_accel.policies.checkpoint import Manifest
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.objectives import sample
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.policies.solvers import FLOW
from ros_vla_accel.policies.warm_start import WarmStart

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

    def __init__(
        self,
        condition: GraphSession,
        step: GraphSession,
        config: ModelConfig,
        device: torch.device,
    ) -> None:
        self._condition, self._step, self._device = condition, step, device
        self._shapes = signature("condition", config).outputs
        self._held: dict[str, Tensor] = {}
        self._index = torch.zeros((), dtype=torch.int64, device=device)
        self._noisy = self._out = torch.empty(0)
        self._kept: tuple[Tensor, ...] = ()
        step.bind("index", self._index)

    def condition(self, context: Tensor, time: Tensor) -> Held:
        """context: (B, M, D) float32. time: (B, S), the same for all of the batch."""
        size = (len(context), time.shape[1])
        if not self._held or self._held["modulation_out"].shape[:2] != size:
            self._allocate(*size)
        self._kept = (context.contiguous(), time[0].float().contiguous())
        self._condition.bind("context", self._kept[0])
        self._condition.bind("times", self._kept[1])
        self._condition.run()
        return Held()

    def _allocate(self, batch: int, steps: int) -> None:
        """Storage of what ``condition`` hands to ``step``: the same memory is bound to both."""
        sizes = {"batch": batch, "steps": steps}
        for name, kind in self._condition.outputs.items():
            shape = sized(self._shapes[name], sizes)
            self._held[name] = torch.empty(shape, dtype=_TYPES[kind], device=self._device)
            self._condition.bind(name, self._held[name])
            self._step.bind(name, self._held[name])

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


class EngineModel:
    """``model.ReferenceVLA``'s three calls on an engine, at the precision of the width that
    ``inference`` opened (the place of ``quantization.ActivationBits``).

    precisions: one per width. All of them are loaded here, so that a switch is one look-up.
    """

    def __init__(self, engine: Engine, config: ModelConfig, precisions: Sequence[str]) -> None:
        self.config = config
        self._device = torch.device(engine.device)
        self._sessions = {
            PRECISIONS[precision]: {g: engine.session(precision, g) for g in GRAPHS}
            for precision in precisions
        }
        self._heads = {
            width: EngineHead(found["condition"], found["step"], config, self._device)
            for width, found in self._sessions.items()
        }
        self._width = max(self._sessions)
        self.head = torch.nn.Module()  # Of the caches' calls: one that never has a cache.

    @contextmanager
    def inference(self, bits: int) -> Iterator[int]:
        """One pass at the width that ``bits`` maps to."""
        self._width = executed_width(bits, tuple(self._sessions))
        yield self._width

    def vision(self, images: Tensor) -> Tensor:
        return self._run("vision", {"images": images})

    def backbone(self, vision: Tensor, state: Tensor, words: Tensor) -> Tensor:
        return self._run("backbone", {"vision": vision, "state": state, "words": words})

    def act(
        self,
        context: Tensor,
        noise: Tensor,
        steps: int,
        bounds: tuple[Tensor, Tensor],
        solver: str | None = None,
        guess: Tensor | None = None,
        start: float = 0.0,
    ) -> Tensor:
        head: Any = self._heads[self._width]
        objective = self.config.objective
        return sample(objective, head, context, noise, steps, bounds, solver, guess, start)

    def _run(self, graph: str, inputs: dict[str, Tensor]) -> Tensor:
        session = self._sessions[self._width][graph]
        whole = {name: tensor.contiguous() for name, tensor in inputs.items()}
        for name, tensor in whole.items():
            session.bind(name, tensor)
        (name,) = session.outputs
        sizes = {"batch": len(next(iter(whole.values())))}
        shape = sized(signature(graph, self.config).outputs[name], sizes)
        out = torch.empty(shape, device=self._device)
        session.bind(name, out)
        session.run()
        return out


def sized(shape: tuple[int | str, ...], sizes: Mapping[str, int]) -> list[int]:
    return [sizes[size] if isinstance(size, str) else size for size in shape]


class ExportedPolicy(ReferencePolicy):
    """The reference policy without its torch weights: they are the engine's.

    The checkpoint's hash stays that of the source, as edge and cloud compare it. ``spec.widths``
    are those that a precision was exported for; others run at the next wider one, and chunks say
    which (``activation_bits``).

    precisions: of ``manifest.PRECISIONS``, at most one per width and one of 16; None: the first of
    each width in the manifest. steps: None: as exported. fixed_batch: requests are answered one by
    one, for graphs of batch size 1.
    """

    def __init__(
        self,
        manifest: EngineManifest,
        engine: Engine,
        precisions: Sequence[str] | None = None,
        steps: int | None = None,
        source: str = "edge",
        fixed_batch: bool = False,
        solver: str | None = None,
        warm_start: float = 0.0,
    ) -> None:
        chosen = choose(manifest, precisions)
        static = [p for p in chosen.values() if p in STATIC]
        if steps not in (None, manifest.steps) and static:
            raise EngineError(
                f"steps {steps} needs scales of its own for {static[0]}, which was exported for "
                f"{manifest.steps}; export again with --steps {steps}, or leave steps out"
            )
        try:
            described = Manifest.from_dict(manifest.policy)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the policy in the manifest is not valid: {error!r}") from error
        spec = replace(
            described.spec,
            checkpoint_hash=manifest.identity,
            widths=tuple(sorted(chosen)),
            precision=f"{', '.join(chosen.values())} on {engine.name}",
        )
        described = replace(described, spec=spec)
        self.engine, self.precisions = engine.name, chosen
        self._check_scales(solver, warm_start)
        self._fixed = fixed_batch
        model = EngineModel(engine, described.model, list(chosen.values()))
        device = torch.device(engine.device)
        steps = manifest.steps if steps is None else steps
        self._serve(model, described, steps, device, source, solver, warm_start)  # type: ignore[arg-type]
        self._latch, self.dtype = model, torch.float32  # type: ignore[assignment]
        self._try()
        log.info("%s on %s: %s", spec.name, engine.name, self.mapping())

    def mapping(self) -> str:
        """Which precision each activation width runs in."""
        runs = {bits: executed_width(bits, self.spec.widths) for bits in ACTIVATION_BITS}
        return ", ".join(
            f"{bits} bits: {self.precisions[width]}" + ("" if bits == width else f" ({width})")
            for bits, width in runs.items()
        )

    def _check_scales(self, solver: str | None, warm_start: float) -> None:
        static = [p for p in self.precisions.values() if p in STATIC]
        if static and (warm_start or FLOW.get(solver or "", 1) > 1):
            raise EngineError(
                f"{static[0]} has a scale for each exported step, so it takes neither a warm "
                "start nor a solver of second order; use other precisions, or leave both out"
            )

    def accelerate(self, cache: Mapping[str, Any] | None, warm_start: float) -> None:
        """Only the warm start; ValueError for a cache, which needs the head in torch."""
        if cache is not None:
            raise ValueError("the cache of the action head needs engine: torch; leave it out")
        self._check_scales(self._solver, warm_start)
        self._warm = WarmStart(warm_start)

    def reused(self) -> float:
        """There is no cache."""
        return float("nan")

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        if not self._fixed:
            return super().infer(requests)
        return [super(ExportedPolicy, self).infer([request])[0] for request in requests]

    def _try(self) -> None:
        """One inference per width: kernels that are missing show here, not on the robot."""
        spec = self.spec
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in spec.cameras}
        state = np.zeros(len(spec.state_names), np.float32)
        seen = Observation(images, state, "nothing", 0)
        for width in spec.widths:
            (chunk,) = self.infer([InferenceRequest(seen, 0, 0, activation_bits=width)])
            if not np.isfinite(chunk.actions).all():
                raise EngineError(
                    f"{self.precisions[width]} on {self.engine} gives actions that are not finite"
                )


def choose(manifest: EngineManifest, precisions: Sequence[str] | None) -> dict[int, str]:
    """Width -> precision. Raises EngineError unless they are there, one per width, one of 16."""
    whole = [p for p, graphs in manifest.graphs.items() if set(graphs) >= set(GRAPHS)]
    if precisions is None:
        found = {PRECISIONS[p]: p for p in reversed(whole)}
    else:
        found = {}
        for precision in precisions:
            if precision not in whole:
                raise EngineError(
                    f"precision '{precision}' was not exported with all stages; there is "
                    f"{', '.join(whole) or 'none'}"
                )
            width = PRECISIONS[precision]
            if width in found:
                raise EngineError(
                    f"'{found[width]}' and '{precision}' are both for {width} bits; choose one"
                )
            found[width] = precision
    if 16 not in found:
        raise EngineError(
            f"a policy needs a precision of 16 bits; {list(found.values()) or 'nothing'} is none: "
            "export fp32, fp16, bf16 or w4a16 with --stage all"
        )
    return found
