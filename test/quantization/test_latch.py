"""The width of a pass: taken once, whoever asks for another meanwhile."""

import copy
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ros_vla_accel.quantization import W4AX, WIDTHS, ActivationBits, activation_bits, quantize_


class Probe(nn.Module):
    """Notes the width inside a pass, and can hold the pass open between two events."""

    def __init__(self):
        super().__init__()
        self.latch, self.seen = None, []
        self.entered = self.go_on = None

    def forward(self, x):
        self.seen.append(self.latch.current)
        if self.entered:
            self.entered.set()
            assert self.go_on.wait(20)
        return x


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 64), probe := Probe(), nn.Linear(64, 64), last := Probe()
    ).eval()
    latch = quantize_(model, W4AX(64))
    probe.latch = last.latch = latch
    return model


def test_a_width_asked_for_inside_a_pass_waits_for_the_next(model):
    x, first, last = torch.randn(3, 64), model[1], model[3]
    activation_bits(model, 4)
    with torch.inference_mode():
        wanted = model(x)
        first.entered, first.go_on, out = threading.Event(), threading.Event(), []
        worker = threading.Thread(target=lambda: out.append(model(x)))
        worker.start()
        assert first.entered.wait(20)
        activation_bits(model, 2)
        first.go_on.set()
        worker.join(20)
        assert last.seen[-1] == 4
        assert torch.equal(out[0], wanted)
        model(x)
    assert last.seen[-1] == 2


def test_a_switch_race_never_mixes_widths_within_a_pass(model):
    stop = threading.Event()

    def switch():
        while not stop.is_set():
            for bits in WIDTHS:
                activation_bits(model, bits)

    worker = threading.Thread(target=switch)
    worker.start()
    try:
        with torch.inference_mode():
            for _ in range(200):
                model(torch.zeros(1, 64))
    finally:
        stop.set()
        worker.join(20)
    assert model[1].seen == model[3].seen


def test_two_threads_have_passes_of_their_own(model):
    latch = model[1].latch
    with latch.inference(2):
        seen = []
        worker = threading.Thread(target=lambda: seen.append(latch.current))
        worker.start()
        worker.join(20)
        assert (latch.current, seen) == (2, [16])


@given(st.lists(st.sampled_from(WIDTHS), max_size=8), st.sampled_from(WIDTHS))
def test_only_the_outermost_pass_takes_a_width(requests, first):
    latch = ActivationBits(first)
    with latch.inference() as taken:
        for bits in requests:
            latch.request(bits)
            with latch.inference(bits) as inner:
                assert inner == taken == latch.current == first
    assert latch.current == (requests or [first])[-1]


def test_a_pass_that_fails_is_over(model):
    activation_bits(model, 8)
    with pytest.raises(ValueError, match="must have 64 features"):
        model(torch.randn(2, 63))
    activation_bits(model, 4)
    assert model[1].latch.current == 4


@pytest.mark.parametrize("bits", [0, 3, 32, "8"])
def test_an_unknown_width_is_refused(model, bits):
    with pytest.raises(ValueError, match=r"choose from \(2, 4, 8, 16\)"):
        activation_bits(model, bits)


def test_a_copied_model_has_a_latch_of_its_own(model):
    activation_bits(model, 8)
    copied = copy.deepcopy(model)
    copied[1].latch = copied[0].latch
    activation_bits(model, 2)
    assert copied[0].latch.requested == 8
    assert copied[0].latch is copied[2].latch
    with torch.inference_mode():
        copied(torch.zeros(1, 64))
    assert copied[1].seen[-1] == 8


def test_a_switch_touches_no_packed_byte(model):
    layer = model[0]
    before = (layer.packed.data_ptr(), layer.native(), layer.packed.clone())
    for bits in WIDTHS:
        activation_bits(model, bits)
        model(torch.zeros(1, 64))
    assert layer.packed.data_ptr() == before[0]
    assert layer.native() is before[1]
    assert torch.equal(layer.packed, before[2])
