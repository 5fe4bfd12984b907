"""Models that were not written for this: Hugging Face decoders with random weights."""

import pytest
import torch

from ros_vla_accel.quantization import (
    W4AXLinear,
    activation_bits,
    load_quantized,
    quantize_,
    save_quantized,
    summary,
)

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 128,
}


def build(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.mark.parametrize("family", ["Llama", "Gemma"])
def test_a_decoder_packs_all_projections_of_its_layers(family):
    model = build(family)
    quantize_(model)
    packed = [name for name, m in model.named_modules() if isinstance(m, W4AXLinear)]
    assert len(packed) == 2 * 7
    assert all(".layers." in name for name in packed)
    assert [layer.name for layer in summary(model).layers if not layer.bits] == ["lm_head"]


@pytest.mark.parametrize("family", ["Llama", "Gemma"])
def test_a_decoder_runs_at_every_width_with_and_without_its_cache(family):
    model, tokens = build(family), torch.randint(0, 128, (1, 12))
    with torch.inference_mode():
        exact = model(tokens).logits
        quantize_(model)
        distances = []
        for bits in (2, 4, 8, 16):
            activation_bits(model, bits)
            out = model(tokens).logits
            past = model(tokens[:, :-1], use_cache=True).past_key_values
            step = model(tokens[:, -1:], past_key_values=past).logits
            torch.testing.assert_close(step[:, -1], out[:, -1], rtol=0.05, atol=0.05)
            distances.append(((out - exact).norm() / exact.norm()).item())
    assert distances[0] > distances[1] > distances[2]
    assert distances[3] < 0.3


def test_a_decoder_saves_and_loads_packed(tmp_path):
    model, fresh, tokens = build("Llama"), build("Llama"), torch.randint(0, 128, (1, 5))
    quantize_(model)
    save_quantized(model, tmp_path / "llama.safetensors")
    load_quantized(fresh, tmp_path / "llama.safetensors")
    with torch.inference_mode():
        assert torch.equal(fresh(tokens).logits, model(tokens).logits)
