"""Packed models in safetensors files: what is written is what the kernels read."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from ros_vla_accel.quantization import packing
from ros_vla_accel.quantization.api import attach, replace_module, state_of
from ros_vla_accel.quantization.latch import ActivationBits
from ros_vla_accel.quantization.linear import W4AXLinear

_KEY, _FORMAT = "w4ax", 1


def save_quantized(model: nn.Module, path: str | Path) -> None:
    """Writes all tensors of a quantized model, packed ones as they are."""
    layers = {
        name: {"group_size": m.group_size, "bytes_before": m.bytes_before}
        for name, m in model.named_modules(remove_duplicate=False)
        if isinstance(m, W4AXLinear)
    }
    content = {"format": _FORMAT, "layers": layers, "kept": state_of(model).kept}
    safetensors.torch.save_model(model, str(path), {_KEY: json.dumps(content)})


def load_quantized(model: nn.Module, path: str | Path) -> ActivationBits:
    """Fills a float model of the same structure from ``save_quantized``, in place.

    Its layers are replaced before anything is read, so packed weights never exist as floats.
    Raises ValueError for a file that is no quantized model or that does not fit.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"'{path}' is not safetensors: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"'{path}' holds no quantized model; write it with save_quantized")
    content = json.loads(metadata[_KEY])
    if content["format"] != _FORMAT:
        raise ValueError(
            f"'{path}' has format {content['format']}, this version reads {_FORMAT}; save it again"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    wrong = [name for name in content["layers"] if type(modules.get(name)) is not nn.Linear]
    if wrong:
        raise ValueError(f"'{path}' has packed layers that the model has not: {wrong[:5]}")
    latch = ActivationBits()
    done: dict[int, W4AXLinear] = {}
    for name, about in content["layers"].items():
        layer = modules[name]
        if id(layer) not in done:
            device = layer.weight.device
            empty = packing.empty(
                layer.out_features, layer.in_features, about["group_size"], device
            )
            done[id(layer)] = W4AXLinear(
                layer.in_features,
                layer.out_features,
                about["group_size"],
                latch,
                empty,
                layer.bias,
                about["bytes_before"],
            )
        replace_module(model, name, done[id(layer)])
    attach(model, latch, content["kept"])
    try:
        safetensors.torch.load_model(model, str(path))
    except RuntimeError as error:
        raise ValueError(f"'{path}' does not fit the model: {error}") from error
    return latch
