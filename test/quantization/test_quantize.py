"""What ``quantize_`` packs, frees, refuses, says and undoes."""

import gc
import weakref

import pytest
import torch
from torch import nn

from ros_vla_accel.quantization import (
    W4AX,
    UnsupportedLayerError,
    W4AXLinear,
    activation_bits,
    dequantize_,
    kernels,
    load_quantized,
    native,
    quantize_,
    save_quantized,
    summary,
)


def linears(module, name):
    return isinstance(module, nn.Linear)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(192, 384), nn.GELU(), nn.Linear(384, 200)).eval()


def test_the_float_weights_are_gone():
    model = mlp()
    gone = weakref.ref(model[0].weight)
    quantize_(model, W4AX(64))
    gc.collect()
    assert gone() is None
    assert model[0].bytes_after < 0.2 * model[0].bytes_before


@pytest.mark.parametrize(("bits", "most"), [(16, 0.12), (8, 0.12), (4, 0.3)])
def test_outputs_stay_close_to_those_of_the_float_model(bits, most):
    torch.manual_seed(1)
    layer = nn.Linear(512, 256)
    nn.init.normal_(layer.weight)
    model, x = nn.Sequential(layer), torch.randn(32, 512)
    with torch.inference_mode():
        exact = model(x)
        quantize_(model)
        activation_bits(model, bits)
        assert (model(x) - exact).norm() / exact.norm() < most


def test_the_search_of_scales_lowers_the_error():
    torch.manual_seed(2)
    weight = torch.distributions.StudentT(4.0).sample((64, 512))
    errors = []
    for search in (False, True):
        model = nn.Sequential(nn.Linear(512, 64))
        model[0].weight.data.copy_(weight)
        quantize_(model, W4AX(search=search))
        errors.append((model[0].dequantized() - weight).norm().item())
    assert errors[1] < 0.97 * errors[0]


def test_weights_on_the_grid_are_packed_without_any_error():
    torch.manual_seed(3)
    weight = torch.randint(-7, 8, (96, 320)).float() * 0.5
    weight[:, ::64] = 3.5
    model = nn.Sequential(nn.Linear(320, 96, bias=False))
    model[0].weight.data.copy_(weight)
    quantize_(model, W4AX(64), linears)
    assert torch.allclose(model[0].dequantized(), weight, rtol=1e-6, atol=0)


def test_dequantize_puts_back_linear_layers_that_compute_the_same():
    model, x = mlp(), torch.randn(5, 192)
    quantize_(model, W4AX(64))
    weight = model[0].dequantized()
    with torch.inference_mode():
        quantized = model(x)
        dequantize_(model)
        assert type(model[0]) is nn.Linear
        assert torch.equal(model[0].weight, weight)
        assert (model(x) - quantized).norm() / quantized.norm() < 0.01
    quantize_(model, W4AX(64))


def test_quantizing_twice_is_refused():
    model = mlp()
    quantize_(model)
    with pytest.raises(ValueError, match="quantized already"):
        quantize_(model)


def test_a_multihead_attention_is_listed_by_the_default_filter():
    model = nn.ModuleDict({"mha": nn.MultiheadAttention(64, 4), "up": nn.Linear(64, 64)})
    quantize_(model)
    notes = {layer.name: layer.note for layer in summary(model).layers}
    assert "bare parameters" in notes["mha"]
    assert "never calls" in notes["mha.out_proj"]
    assert type(model["up"]) is W4AXLinear


def test_a_multihead_attention_chosen_by_name_is_refused_and_nothing_changes():
    model = nn.ModuleDict({"mha": nn.MultiheadAttention(64, 4), "up": nn.Linear(64, 64)})
    with pytest.raises(UnsupportedLayerError, match=r"'mha\.out_proj' cannot be packed"):
        quantize_(model, filter_fn=linears)
    assert type(model["up"]) is nn.Linear


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(UnsupportedLayerError, match="'1' is Conv2d"):
        quantize_(nn.Sequential(nn.Linear(64, 64), nn.Conv2d(3, 3, 3)), filter_fn=lambda m, n: n)


def test_a_subclass_of_linear_is_refused():
    class Scaled(nn.Linear):
        pass

    with pytest.raises(UnsupportedLayerError, match="subclass of"):
        quantize_(nn.Sequential(Scaled(64, 64)), filter_fn=linears)


def test_a_weight_shared_with_an_embedding_is_refused():
    model = nn.Sequential(nn.Embedding(128, 64), nn.Linear(64, 128, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(UnsupportedLayerError, match="shared with another module"):
        quantize_(model, filter_fn=linears)


def test_a_layer_used_in_two_places_stays_one_layer():
    layer = nn.Linear(64, 64)
    model = nn.Sequential(layer, nn.GELU(), layer)
    quantize_(model)
    assert model[0] is model[2]
    assert type(model[0]) is W4AXLinear


def test_a_model_without_a_layer_to_pack_is_refused():
    with pytest.raises(UnsupportedLayerError, match="no layer to pack"):
        quantize_(nn.Sequential(nn.Linear(8, 8)))


def test_weights_that_are_not_finite_are_refused_by_name():
    model = mlp()
    model[2].weight.data[3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"'2': weights are not finite"):
        quantize_(model)


@pytest.mark.parametrize("group_size", [0, 32, 96, -64])
def test_a_group_size_that_the_kernels_cannot_take_is_refused(group_size):
    with pytest.raises(ValueError, match="multiple of 64"):
        W4AX(group_size)


def test_a_gradient_is_refused_instead_of_lost():
    model = mlp()
    quantize_(model)
    with pytest.raises(RuntimeError, match="no backward pass"):
        model(torch.randn(1, 192, requires_grad=True))


def test_changing_the_models_type_leaves_the_scales_exact():
    model, x = mlp(), torch.randn(5, 192).bfloat16()
    quantize_(model)
    with torch.inference_mode():
        before = model(x)
        model.bfloat16()
        assert torch.equal(model(x), before)
    assert model[0].channel_scale.dtype == torch.float32


def test_float16_inputs_come_back_as_float16():
    model = mlp()
    quantize_(model)
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 192).half()).dtype == torch.float16


def test_no_rows_give_no_rows():
    model = mlp()
    quantize_(model)
    with torch.inference_mode():
        assert model(torch.empty(0, 192)).shape == (0, 200)


def test_a_saved_model_loads_packed_and_computes_the_same(tmp_path):
    model, fresh, x = mlp(), mlp(seed=9), torch.randn(5, 192)
    quantize_(model, W4AX(64), lambda m, name: name == "0")
    save_quantized(model, tmp_path / "model.safetensors")
    load_quantized(fresh, tmp_path / "model.safetensors")
    with torch.inference_mode():
        for bits in (2, 4, 8, 16):
            activation_bits(model, bits)
            activation_bits(fresh, bits)
            assert torch.equal(fresh(x), model(x))
    assert summary(fresh) == summary(model)


def test_the_state_dict_holds_bytes_and_fits_a_model_quantized_alike():
    model, other, x = mlp(), mlp(seed=9), torch.randn(5, 192)
    for each in (model, other):
        quantize_(each, W4AX(64))
    state = model.state_dict()
    assert state["0.packed"].dtype == torch.uint8
    other.load_state_dict(state)
    with torch.inference_mode():
        assert torch.equal(other(x), model(x))


def test_a_file_of_plain_weights_is_refused(tmp_path):
    from safetensors.torch import save_model

    save_model(mlp(), str(tmp_path / "plain.safetensors"))
    with pytest.raises(ValueError, match="no quantized model"):
        load_quantized(mlp(), tmp_path / "plain.safetensors")


def test_a_file_of_another_model_is_refused(tmp_path):
    model = mlp()
    quantize_(model)
    save_quantized(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="packed layers that the model has not"):
        load_quantized(nn.Sequential(nn.Linear(192, 384)), tmp_path / "model.safetensors")


def test_the_summary_counts_the_bytes_that_the_model_holds():
    model = mlp()
    float_bytes = sum(p.numel() * 4 for p in model.parameters())
    quantize_(model, filter_fn=lambda m, name: name == "0")
    found = summary(model)
    tensors = (*model.parameters(), *model.buffers())
    assert found.bytes_before == float_bytes
    assert found.bytes_after == sum(t.numel() * t.element_size() for t in tensors)
    slow = kernels.choose("cpu", 16, 1).fallback  # Nothing, where the processor has AMX.
    assert [layer.note for layer in found.layers] == [slow, "left out by the filter"]
    assert "not packed" in str(found)


def test_the_summary_names_the_kernels_that_run(monkeypatch):
    model = mlp()
    quantize_(model)
    found = summary(model).layers[0]
    assert found.bits == (2, 4, 8, 16)
    for bits, least, name in found.kernels:
        assert kernels.choose("cpu", bits, least).name == name


def test_the_summary_says_when_the_compiled_kernels_are_missing(monkeypatch):
    model = mlp()
    quantize_(model)
    monkeypatch.setattr(native, "library", lambda: None)
    kernels.table.cache_clear()
    try:
        assert "C compiler" in str(summary(model))
    finally:
        kernels.table.cache_clear()
