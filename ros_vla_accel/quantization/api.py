"""``quantize_`` and its inverse, after torchao's call; the width of the next pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ros_vla_accel.quantization import packing
from ros_vla_accel.quantization.config import W4AX
from ros_vla_accel.quantization.latch import ActivationBits
from ros_vla_accel.quantization.linear import W4AXLinear
from ros_vla_accel.quantization.selection import Filter, select

_STATE = "_w4ax"


@dataclass
class QuantizedState:
    """What ``quantize_`` leaves on a model. kept: linear layers that stayed, with the reason."""

    latch: ActivationBits
    kept: dict[str, str]
    hooks: list[Any] = field(default_factory=list)


def state_of(model: nn.Module) -> QuantizedState:
    """ValueError for a model that ``quantize_`` has not seen."""
    state = model.__dict__.get(_STATE)
    if state is None:
        raise ValueError(f"{type(model).__name__} is not quantized; call quantize_(model) first")
    return state


def quantize_(
    model: nn.Module, config: W4AX | None = None, filter_fn: Filter | None = None
) -> ActivationBits:
    """Packs the chosen ``nn.Linear`` of ``model`` to INT4, in place, and frees their weights.

    filter_fn: (module, name) -> bool; ``selection.default_filter`` when None. The model then runs
    at the width of the returned latch, 16 at first, which is taken when the model, or a direct
    child of it, is called. Raises UnsupportedLayerError for a layer that cannot be packed, before
    anything is changed, and ValueError for a model that is quantized already.
    """
    if model.__dict__.get(_STATE) is not None:
        raise ValueError("the model is quantized already; dequantize_(model) first")
    config = config or W4AX()
    chosen, kept = select(model, filter_fn)
    latch = ActivationBits()
    done: dict[int, W4AXLinear] = {}
    for name in list(chosen):
        layer = chosen.pop(name)  # The last reference but the model's own.
        if id(layer) not in done:
            before = sum(p.numel() * p.element_size() for p in layer.parameters())
            with torch.no_grad():
                try:
                    packed = packing.pack(layer.weight, config.group_size, config.search)
                except ValueError as error:
                    raise ValueError(f"'{name}': {error}") from error
            done[id(layer)] = W4AXLinear(
                layer.in_features,
                layer.out_features,
                config.group_size,
                latch,
                packed,
                layer.bias,
                before,
            )
        replace_module(model, name, done[id(layer)])
    attach(model, latch, kept)
    return latch


def replace_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def attach(model: nn.Module, latch: ActivationBits, kept: dict[str, str]) -> None:
    """Opens and closes passes of ``latch`` at calls of the model and of its direct children."""
    state = QuantizedState(latch, kept)
    for module in (model, *model.children()):
        if isinstance(module, W4AXLinear):
            continue  # It reads the latch once per call anyway.
        state.hooks.append(module.register_forward_pre_hook(latch._before, prepend=True))
        state.hooks.append(module.register_forward_hook(latch._after, always_call=True))
    model.__dict__[_STATE] = state


def dequantize_(model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Puts ``nn.Linear`` layers back, with the values that the packed weights stand for."""
    state = state_of(model)
    done: dict[int, nn.Linear] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(module, W4AXLinear):
            continue
        if id(module) not in done:
            layer = nn.Linear(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                device="meta",
            )
            layer.weight = nn.Parameter(module.dequantized().to(dtype))
            if module.bias is not None:
                layer.bias = nn.Parameter(module.bias.to(dtype))
            done[id(module)] = layer.train(model.training)
        replace_module(model, name, done[id(module)])
    for hook in state.hooks:
        hook.remove()
    del model.__dict__[_STATE]


def activation_bits(model: nn.Module, bits: int) -> None:
    """Sets the width (2, 4, 8 or 16) of the next forward pass: one assignment, from any thread."""
    state_of(model).latch.request(bits)
