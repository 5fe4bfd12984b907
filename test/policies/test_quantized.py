from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.contracts import InferenceRequest, Observation
from ros_vla_accel.policies import reference
from ros_vla_accel.quantization import W4AXLinear, summary

MakeRequest = Callable[..., InferenceRequest]


def test_a_quantized_policy_offers_all_widths_of_the_same_checkpoint(checkpoint: Path) -> None:
    plain, quantized = reference(checkpoint), reference(checkpoint, quantize="w4ax")
    assert (plain.spec.widths, quantized.spec.widths) == ((16,), (2, 4, 8, 16))
    assert plain.spec.checkpoint_hash == quantized.spec.checkpoint_hash


def test_a_batch_runs_at_the_widest_activations_that_it_asks_for(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint, quantize="w4ax")
    request = request_for(observation)
    asked = {bits: replace(request, activation_bits=bits) for bits in (2, 4, 8, 16)}
    alone = {bits: policy.infer([asked[bits]])[0] for bits in asked}
    assert [chunk.activation_bits for chunk in alone.values()] == [2, 4, 8, 16]
    together = policy.infer([asked[2], asked[8]])
    assert [chunk.activation_bits for chunk in together] == [8, 8]
    np.testing.assert_allclose(together[0].actions, alone[8].actions, atol=1e-4)
    assert np.abs(alone[2].actions - alone[8].actions).max() > 0


def test_routers_encoders_and_the_last_projection_stay(checkpoint: Path) -> None:
    model = reference(checkpoint, quantize="w4ax").model
    packed = {name for name, m in model.named_modules() if isinstance(m, W4AXLinear)}
    assert packed
    assert all(name.startswith(("backbone.layers.", "head.blocks.")) for name in packed)
    kept = {layer.name for layer in summary(model).layers if not layer.bits}
    assert {"head.out", "head.embed", "backbone.state.0", "head.blocks.0.moe.router"} <= kept


def test_an_unknown_quantization_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="set it to w4ax"):
        reference(checkpoint, quantize="int8")
