"""Weights to INT4 and back: w = channel_scale * group_scale * (nibble - 8).

Progressive scales (QServe, arXiv:2405.04532): the group scale is an integer of 1..15, so that
group_scale * (nibble - 8) is an int8 in -120..105 and one float per output channel remains. The
layout is the kernels' own and is described in csrc/w4ax.h; files hold it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PANEL, BLOCK, HALF = 32, 128, 64
LARGEST_GROUP_SCALE = 15
_CLIPPED = 5  # group scales tried: the one that covers the largest weight, and the next smaller
_ROWS = 1024  # packed at a time, to bound the float32 intermediates


@dataclass(frozen=True)
class PackedWeight:
    """A weight (N, K); N is padded to 32 channels, K to 128 inputs.

    packed: (N/32, K/128, 32, 64) uint8. group_scale: (N/32, groups, 32) uint8. channel_scale:
    (N,) float32. row_sum: (N,) int32, the sum of each channel's int8 weights.
    """

    packed: Tensor
    group_scale: Tensor
    channel_scale: Tensor
    row_sum: Tensor


def padded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def empty(outputs: int, inputs: int, group_size: int, device: torch.device | str) -> PackedWeight:
    """Zero weights of shape (outputs, inputs)."""
    n, blocks, groups = padded(outputs, PANEL), -(-inputs // BLOCK), -(-inputs // group_size)
    return PackedWeight(
        torch.full((n // PANEL, blocks, PANEL, HALF), 0x88, dtype=torch.uint8, device=device),
        torch.ones(n // PANEL, groups, PANEL, dtype=torch.uint8, device=device),
        torch.zeros(n, dtype=torch.float32, device=device),
        torch.zeros(n, dtype=torch.int32, device=device),
    )


def pack(weight: Tensor, group_size: int, search: bool) -> PackedWeight:
    """Quantizes weight (N, K) of any float type. ValueError for weights that are not finite."""
    outputs, inputs = weight.shape
    out = empty(outputs, inputs, group_size, weight.device)
    for first in range(0, outputs, _ROWS):
        rows = weight[first : first + _ROWS].detach().float()
        if not torch.isfinite(rows).all():
            raise ValueError("weights are not finite: this checkpoint cannot be quantized")
        count = len(rows)
        channels = padded(count, PANEL)
        width = padded(inputs, group_size)
        rows = torch.nn.functional.pad(rows, (0, width - inputs, 0, channels - count))
        nibbles, group_scale, scale = _quantize(rows.view(channels, -1, group_size), search)
        integers = (nibbles.short() - 8) * group_scale.unsqueeze(-1)
        panels = slice(first // PANEL, (first + channels) // PANEL)
        whole = torch.nn.functional.pad(
            nibbles.flatten(1)[:, : padded(inputs, BLOCK)],
            (0, max(0, padded(inputs, BLOCK) - width)),
            value=8,
        )
        halves = whole.view(-1, PANEL, whole.shape[1] // BLOCK, 2, HALF)
        out.packed[panels] = (halves[:, :, :, 0] | halves[:, :, :, 1] << 4).transpose(1, 2)
        out.group_scale[panels] = group_scale.view(-1, PANEL, group_scale.shape[1]).transpose(1, 2)
        out.channel_scale[first : first + channels] = scale
        out.row_sum[first : first + channels] = integers.flatten(1).sum(1, dtype=torch.int32)
    return out


def _quantize(groups: Tensor, search: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(N, G, S) float32 -> nibbles of that shape, group scales (N, G) and channel scales (N,)."""
    largest = groups.abs().amax(-1)
    scale = largest.amax(-1) / (7 * LARGEST_GROUP_SCALE)
    unit = torch.where(scale > 0, scale, 1.0)[:, None]
    cover = (largest / (7 * unit)).ceil().clamp(1, LARGEST_GROUP_SCALE)
    best = torch.full_like(cover, torch.inf)
    nibbles = torch.full(groups.shape, 8, dtype=torch.uint8, device=groups.device)
    chosen = torch.ones_like(cover)
    for step in range(_CLIPPED if search else 1):
        trial = (cover - step).clamp(min=1)
        size = (trial * unit)[..., None]
        q = (groups / size).round_().clamp_(-8, 7)
        if not search:
            return (q + 8).to(torch.uint8), trial.to(torch.uint8), scale
        error = (q * size - groups).square_().sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, trial, chosen)
        nibbles = torch.where(better[..., None], (q + 8).to(torch.uint8), nibbles)
    return nibbles, chosen.to(torch.uint8), scale


def integers(
    packed: Tensor, group_scale: Tensor, group_size: int, panels: slice = slice(None)
) -> Tensor:
    """The int8 weights (N, K), both padded, of some panels."""
    some = packed[panels]
    nibbles = torch.stack([some & 15, some >> 4], dim=3).to(torch.int8) - 8
    nibbles = nibbles.transpose(1, 2).flatten(0, 1).flatten(1)
    scale = group_scale[panels].transpose(1, 2).flatten(0, 1).to(torch.int8)
    scale = scale.repeat_interleave(group_size, 1)[:, : nibbles.shape[1]]
    missing = nibbles.shape[1] - scale.shape[1]
    return nibbles * torch.nn.functional.pad(scale, (0, missing))
