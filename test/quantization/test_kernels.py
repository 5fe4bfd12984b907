"""Every path gives the integers that arithmetic gives, and the same floats after them."""

import pytest
import torch

from ros_vla_accel.quantization import kernels, native, packing, torch_kernels
from ros_vla_accel.quantization.latch import ActivationBits
from ros_vla_accel.quantization.linear import W4AXLinear

SHAPES = [(1, 1, 64), (33, 100, 64), (40, 130, 128), (64, 192, 64), (96, 384, 192), (32, 129, 64)]
ROWS = (1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 47, 64, 255, 256, 257)


def make(outputs, inputs, group_size, bias=True):
    generator = torch.Generator().manual_seed(outputs * 1000 + inputs)
    weight = torch.randn(outputs, inputs, generator=generator)
    packed = packing.pack(weight, group_size, search=False)
    extra = torch.randn(outputs, generator=generator) if bias else None
    return W4AXLinear(inputs, outputs, group_size, ActivationBits(), packed, extra, 0)


def integer_weight(layer):
    whole = packing.integers(layer.packed, layer.group_scale, layer.group_size)
    return whole[: layer.out_features, : layer.in_features].long()


@pytest.fixture(params=native.PATHS)
def path(request):
    loaded = native.library()
    if loaded is None or request.param not in loaded.paths:
        pytest.skip(f"'{request.param}' does not run here")
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_path_sums_exactly_the_integers_of_the_reference(path, shape, dtype):
    layer = make(*shape)
    weight = integer_weight(layer)
    for rows in ROWS:
        x = torch.randn(rows, shape[1]).to(dtype)
        for bits in (2, 4, 8):
            quantized, scale = torch_kernels.quantize_rows(x, bits)
            sums, found = native.library().accumulate(
                layer.native(), x, layer.out_features, bits, path
            )
            assert torch.equal(found, scale), (rows, bits)
            assert torch.equal(sums.long(), quantized.long() @ weight.T), (rows, bits)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_path_gives_torchs_outputs_to_the_last_bit(path, dtype, bias):
    layer = make(72, 200, 64, bias)
    for rows in (1, 7, 40):
        x = torch.randn(rows, 200).to(dtype)
        for bits in (2, 4, 8):
            out = native.library().linear(layer.native(), x, 72, bits, path)
            assert torch.equal(out, torch_kernels.integer(layer, x, bits))


def test_the_largest_integers_do_not_overflow_a_path(path):
    layer = make(32, 4096, 64)
    layer.packed.fill_(0x0F)  # -8 in one half of a block and 7 in the other
    layer.group_scale.fill_(packing.LARGEST_GROUP_SCALE)
    layer.row_sum.copy_(
        packing.integers(layer.packed, layer.group_scale, 64).sum(1, dtype=torch.int32)
    )
    x = torch.ones(33, 4096)
    x[1] = -1.0
    sums, _ = native.library().accumulate(layer.native(), x, 32, 8, path)
    quantized, _ = torch_kernels.quantize_rows(x, 8)
    assert torch.equal(sums.long(), quantized.long() @ integer_weight(layer).T)
    assert torch.equal(torch_kernels.accumulate(layer, quantized), sums)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_comes_out_as_nan_and_leaves_the_others_alone(path, value):
    layer = make(64, 128, 64)
    x = torch.randn(4, 128)
    clean = native.library().linear(layer.native(), x, 64, 8, path)
    x[2, 5] = value
    out = native.library().linear(layer.native(), x, 64, 8, path)
    assert out[2].isnan().all()
    assert torch.equal(out[[0, 1, 3]], clean[[0, 1, 3]])


def test_a_row_of_zeros_comes_out_as_the_bias(path):
    layer = make(64, 128, 64)
    out = native.library().linear(layer.native(), torch.zeros(3, 128), 64, 4, path)
    assert torch.equal(out, layer.bias.expand(3, -1))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(path, threads):
    layer, before = make(1000, 256, 128), torch.get_num_threads()
    x = torch.randn(300, 256)
    try:
        torch.set_num_threads(threads)
        out = native.library().linear(layer.native(), x, 1000, 8, path)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, torch_kernels.integer(layer, x, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ROWS)
def test_width_16_is_a_bf16_product_with_the_packed_weights(rows, dtype):
    layer = make(72, 200, 64)
    x = torch.randn(rows, 200).to(dtype)
    exact = x.bfloat16().double() @ layer.dequantized().double().T + layer.bias.double()
    for kernel in {kernels.choose("cpu", 16, rows).run, torch_kernels.bf16}:
        error = (kernel(layer, x, 16).double() - exact).norm() / exact.norm()
        assert error < 5e-3


def test_fewer_bits_are_coarser_and_none_is_skipped():
    layer = make(256, 512, 128)
    x = torch.randn(64, 512)
    exact = x @ layer.dequantized().T + layer.bias
    errors = []
    for bits in (2, 4, 8):
        out = kernels.choose("cpu", bits, 64).run(layer, x, bits)
        errors.append(((out - exact).norm() / exact.norm()).item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_the_table_names_a_kernel_for_every_device_width_and_row_count():
    for device in ("cpu", "cuda"):
        for bits in (2, 4, 8, 16):
            for rows in (1, 2, 32, 512):
                assert kernels.choose(device, bits, rows).name


def test_another_device_is_refused_by_name():
    with pytest.raises(ValueError, match="'mps' has no W4AX kernels"):
        kernels.choose("mps", 8, 1)


def test_without_the_library_torch_does_the_same_and_the_kernel_says_so(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    kernels.table.cache_clear()
    kernels.choose.cache_clear()
    try:
        for bits in (2, 4, 8, 16):
            kernel = kernels.choose("cpu", bits, 8)
            assert "C compiler" in kernel.fallback
        layer, x = make(64, 128, 64), torch.randn(8, 128)
        assert torch.equal(layer(x), torch_kernels.bf16(layer, x, 16))
    finally:
        kernels.table.cache_clear()
        kernels.choose.cache_clear()
