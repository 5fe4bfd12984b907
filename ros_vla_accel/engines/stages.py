"""The reference VLA as modules of tensors alone, in the form in which ``torch.onnx`` traces them.

Between stages everything is float32, whatever the graph computes in, so that stages of several
precisions fit together and features of any cut can be fed in. Only keys, values and modulations of
the head stay in its own type: they go from ``condition`` to ``step`` and nowhere else.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.head import Conditioning
from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.policies.moe import MixtureOfExperts

STAGE_GRAPHS = {"vision": ("vision",), "backbone": ("backbone",), "head": ("condition", "step")}
"""Stage -> its graphs. The head has one for what all denoising steps share, and one per step."""
GRAPHS = tuple(graph for graphs in STAGE_GRAPHS.values() for graph in graphs)


class DenseMixture(nn.Module):
    """``MixtureOfExperts`` without data-dependent shapes: two products over all experts at once.

    sum_e g_e down_e(gelu(up_e x)) = [g_1 gelu(up_1 x), ..., g_E gelu(up_E x)] [down_1; ...], with
    g_e = 0 for experts that the token was not sent to and g = 1 for the shared one. Branches that
    the routed form skips are computed and multiplied by zero.
    """

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        experts = [*mixture.experts, mixture.shared]
        self.router, self.chosen = mixture.router, mixture.experts_per_token
        self.hidden = experts[0].up.out_features
        self.up = _linear(
            torch.cat([e.up.weight for e in experts]), torch.cat([e.up.bias for e in experts])
        )
        self.down = _linear(torch.cat([e.down.weight for e in experts], dim=1), None)
        self.register_buffer("bias", torch.stack([e.down.bias for e in experts]).detach())

    def gates(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, E + 1), the shared expert last."""
        logits = self.router(x).float()
        top, chosen = logits.topk(self.chosen, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1))
        return torch.cat([gates, torch.ones_like(gates[:, :1])], dim=-1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates(x)
        # Rank 3: linear layers of rank 2 are exported as Gemm, which no INT4 operator replaces.
        hidden = functional.gelu(self.up(x.unsqueeze(0)), approximate="tanh")
        gated = hidden.unflatten(-1, (-1, self.hidden)) * gates.unsqueeze(-1)
        return self.down(gated.flatten(2)).squeeze(0) + gates @ self.bias


class RoutedMixture(nn.Module):
    """``MixtureOfExperts`` with shapes that depend on the data: each expert sees its rows alone.

    Where the engine can run it, it computes k of E experts per token; TensorRT wants the dense
    form.
    """

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.router, self.chosen = mixture.router, mixture.experts_per_token
        self.experts, self.shared = mixture.experts, mixture.shared

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x).float()
        top, chosen = logits.topk(self.chosen, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1)).to(x.dtype)
        # ONNX Runtime adds rows in float32 alone.
        out = self.shared(x.unsqueeze(0)).squeeze(0).float()
        for index, expert in enumerate(self.experts):
            gate = gates[:, index]
            rows = gate.nonzero().squeeze(-1)
            branch = expert(x.index_select(0, rows).unsqueeze(0)).squeeze(0)
            branch = branch * gate.index_select(0, rows).unsqueeze(-1)
            out = out.index_add(0, rows, branch.float())
        return out.to(x.dtype)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


class StepScaled(nn.Module):
    """A linear layer whose input is brought to -1..1 by the denoising step's own scale.

    A Q/DQ pair around it may then have one constant scale, which TensorRT asks for, while what is
    rounded has a scale per step: row ``holder.index`` of ``largest`` (S,), the largest magnitudes
    seen at each step.
    """

    def __init__(self, layer: nn.Linear, largest: Tensor, holder: StepIndex) -> None:
        super().__init__()
        self.weight, self.bias, self.holder = layer.weight, layer.bias, holder
        # Larger than the smallest normal float16, for graphs of that type.
        scale, kind = largest.clamp(min=1e-4), layer.weight.dtype
        self.register_buffer("scale", scale.to(kind))
        self.register_buffer("inverse", (1 / scale).to(kind))

    def forward(self, x: Tensor) -> Tensor:
        index = self.holder.index
        out = functional.linear(x * self.inverse.index_select(0, index), self.weight)
        out = out * self.scale.index_select(0, index)
        return out if self.bias is None else out + self.bias


class StepIndex:
    """The step (1,) int64 that runs now; set by ``Step``."""

    index: Tensor


class Vision(nn.Module):
    """images (B, C, 3, S, S) uint8 -> tokens (B, N, D) float32."""

    def __init__(self, model: ReferenceVLA) -> None:
        super().__init__()
        self.vision = model.vision

    def forward(self, images: Tensor) -> Tensor:
        return self.vision(images).float()


class Backbone(nn.Module):
    """vision (B, N, D) float32, state (B, S) float32, words (B, W) int64 -> context (B, M, D)."""

    def __init__(self, model: ReferenceVLA) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.dtype = model.backbone.summary.dtype

    def forward(self, vision: Tensor, state: Tensor, words: Tensor) -> Tensor:
        return self.backbone(vision.to(self.dtype), state, words).float()


class Condition(nn.Module):
    """context (B, M, D) float32, times (S,) float32 -> keys and values of each block, then the
    modulations of each block and of the output layer (``head.Conditioning``), flat."""

    def __init__(self, model: ReferenceVLA) -> None:
        super().__init__()
        self.head = model.head
        self.dtype = model.head.position.dtype

    def forward(self, context: Tensor, times: Tensor) -> tuple[Tensor, ...]:
        time = times.unsqueeze(0).expand(context.shape[0], -1)
        return flat(self.head.condition(context.to(self.dtype), time))


def flat(conditioning: Conditioning) -> tuple[Tensor, ...]:
    """In the order of ``signature("condition")``'s outputs."""
    return (*(t for memory in conditioning.memory for t in memory), *conditioning.modulations)


class Step(nn.Module):
    """noisy (B, 1, H, A) float32, index () int64 and what ``Condition`` gave -> velocity or noise
    of that shape. The index picks the step's modulations inside the graph.

    largest: layers of ``model``, which it changes, to scale per step (``StepScaled``).
    """

    def __init__(self, model: ReferenceVLA, largest: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.head = model.head
        self.blocks = model.config.blocks
        self.holder = StepIndex()
        for name, table in (largest or {}).items():
            parent, _, child = name.rpartition(".")
            owner = self.get_submodule(parent)
            setattr(owner, child, StepScaled(getattr(owner, child), table, self.holder))
        self.dtype = model.head.position.dtype

    def forward(self, noisy: Tensor, index: Tensor, *conditioning: Tensor) -> Tensor:
        held = 2 * self.blocks
        memory = list(zip(conditioning[:held:2], conditioning[1:held:2], strict=True))
        pick = index.reshape(1)
        self.holder.index = pick
        modulations = [m.index_select(1, pick) for m in conditioning[held:]]
        return self.head(noisy.to(self.dtype), Conditioning(memory, modulations)).float()


_MODULES = {"vision": Vision, "backbone": Backbone, "condition": Condition, "step": Step}


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one graph: name -> shape, with names for the sizes that may vary."""

    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]


def signature(graph: str, config: ModelConfig) -> Signature:
    """Shapes of a graph; ``batch`` and ``steps`` vary."""
    tokens = config.cameras * ((config.image_size // 16) ** 2 + 1)
    width, rows = config.width, 2 + tokens + config.words
    context = {"context": ("batch", rows, width)}
    if graph == "vision":
        size = config.image_size
        return Signature(
            {"images": ("batch", config.cameras, 3, size, size)},
            {"tokens": ("batch", tokens, width)},
        )
    if graph == "backbone":
        return Signature(
            {
                "vision": ("batch", tokens, width),
                "state": ("batch", config.state_features),
                "words": ("batch", config.words),
            },
            context,
        )
    held: dict[str, tuple[int | str, ...]] = {}
    for block in range(config.blocks):
        heads = ("batch", config.heads, rows, width // config.heads)
        held |= {f"key_{block}": heads, f"value_{block}": heads}
    for block in range(config.blocks):
        held[f"modulation_{block}"] = ("batch", "steps", 9 * width)
    held["modulation_out"] = ("batch", "steps", 2 * width)
    if graph == "condition":
        return Signature({**context, "times": ("steps",)}, held)
    noisy = ("batch", 1, config.horizon, config.action_dim)
    return Signature({"noisy": noisy, "index": (), **held}, {"velocity": noisy})


def graph_module(graph: str, model: ReferenceVLA) -> nn.Module:
    """The module of a graph; it shares its layers with ``model``."""
    return _MODULES[graph](model).eval()


MIXTURES = {"routed": RoutedMixture, "dense": DenseMixture}


def traceable_copy(
    model: ReferenceVLA, mixture: str, dtype: torch.dtype = torch.float32
) -> ReferenceVLA:
    """A copy whose mixtures can be traced. mixture: of ``MIXTURES``."""
    copied = copy.deepcopy(model).to(dtype)
    for block in copied.head.blocks:
        block.moe = MIXTURES[mixture](block.moe)
    return copied.eval().requires_grad_(False)


def example_inputs(
    graph: str, model: ReferenceVLA, batch: int, steps: int, seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs of a graph; those that come from another graph are of the model's type."""
    config, sizes = model.config, {"batch": batch, "steps": steps}
    generator = torch.Generator().manual_seed(seed)
    held = signature("condition", config).outputs
    found: dict[str, Tensor] = {}
    for name, shape in signature(graph, config).inputs.items():
        size = [sizes.get(d, d) for d in shape]  # type: ignore[call-overload]
        if name == "images":
            found[name] = torch.randint(0, 256, size, generator=generator).to(torch.uint8)
        elif name == "words":
            found[name] = torch.randint(0, config.vocabulary, size, generator=generator)
        elif name == "index":
            found[name] = torch.tensor(steps - 1)
        elif name == "times":
            found[name] = torch.arange(steps) / steps
        else:
            dtype = model.head.position.dtype if name in held else torch.float32
            found[name] = torch.randn(size, generator=generator).to(dtype)
    return found
