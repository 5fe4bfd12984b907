"""Which layers are packed, and why others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch import nn

Filter = Callable[[nn.Module, str], bool]
"""(module, its name in the model) -> whether to pack it, as in torchao."""

_KEPT = ("norm", "embed", "time", "position", "state_enc", "action_out", "lm_head")
_KEPT_WHOLE = ("router", "gate", "classifier", "proprio", "state")
_MIN_FEATURES = 64
_READ_DIRECTLY = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Modules of torch that hand the weights of their layers to a fused function."""


class UnsupportedLayerError(ValueError):
    """A layer was chosen that cannot be packed."""


def default_filter(module: nn.Module, name: str) -> bool:
    """All of a transformer but norms, embeddings, time and state encoders, routers and the last
    projection, by their usual names, and layers with fewer than 64 inputs or outputs."""
    if not isinstance(module, nn.Linear):
        return False
    parts = name.lower().split(".")
    if any(part in _KEPT_WHOLE or any(word in part for word in _KEPT) for part in parts):
        return False
    return min(module.in_features, module.out_features) >= _MIN_FEATURES


def obstacles(model: nn.Module) -> dict[str, str]:
    """Name -> why this layer cannot be packed, for all the linear layers that cannot."""
    found: dict[str, str] = {}
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _READ_DIRECTLY):
            kind = type(module).__name__
            for child, layer in module.named_modules():
                if child and isinstance(layer, nn.Linear):
                    full = f"{name}.{child}".lstrip(".")
                    found[full] = (
                        f"nn.{kind} reads the weights of its projections itself and never calls "
                        "them; leave it out with filter_fn, or use an attention of nn.Linear calls"
                    )
        if not isinstance(module, nn.Linear) or name in found:
            continue
        if type(module) is not nn.Linear:
            found[name] = (
                f"{type(module).__module__}.{type(module).__qualname__} is a subclass of "
                "nn.Linear whose forward may differ; leave it out with filter_fn"
            )
        elif uses[id(module.weight)] > 1:
            found[name] = "its weight is shared with another module, so packing would free nothing"
        elif module._forward_hooks or module._forward_pre_hooks:
            found[name] = "it has forward hooks, which packing would drop; remove them first"
    return found


def select(
    model: nn.Module, filter_fn: Filter | None
) -> tuple[dict[str, nn.Linear], dict[str, str]]:
    """Layers to pack, and the linear layers that stay with the reason.

    A layer that the caller's own filter chose and that cannot be packed is an error; the default
    filter only lists it. Raises UnsupportedLayerError, also when nothing is left.
    """
    problems = obstacles(model)
    chosen: dict[str, nn.Linear] = {}
    kept: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        linear = isinstance(module, nn.Linear)
        wanted = bool((filter_fn or default_filter)(module, name)) and (linear or bool(filter_fn))
        if isinstance(module, nn.MultiheadAttention):
            # Its in_proj_weight is a bare parameter, which no list of linear layers shows.
            reason = "nn.MultiheadAttention keeps its projections as bare parameters"
            if wanted and filter_fn and filter_fn is not default_filter:
                raise UnsupportedLayerError(f"'{name}' cannot be packed: {reason}")
            kept[name] = reason
        elif not linear:
            if wanted and any(True for _ in module.parameters(recurse=False)):
                raise UnsupportedLayerError(
                    f"'{name}' is {type(module).__name__}; only nn.Linear can be packed, "
                    "so filter_fn must choose those alone"
                )
        elif not wanted:
            kept[name] = "left out by the filter"
        elif name in problems:
            if filter_fn and filter_fn is not default_filter:
                raise UnsupportedLayerError(f"'{name}' cannot be packed: {problems[name]}")
            kept[name] = problems[name]
        else:
            chosen[name] = module
    if not chosen:
        listed = "; ".join(f"'{name}': {why}" for name, why in list(kept.items())[:5])
        raise UnsupportedLayerError(f"no layer to pack ({listed or 'the model has no nn.Linear'})")
    if "" in chosen:
        raise UnsupportedLayerError(
            "the model is a single nn.Linear, which cannot be replaced in place; wrap it in "
            "nn.Sequential"
        )
    return chosen, kept
