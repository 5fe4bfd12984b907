from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from ros_vla_accel.policies.attention import Attention
from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.policies.objectives import noisy_batch, sample, signal_levels

MakeModel = Callable[[str], ReferenceVLA]
BOUNDS = (torch.full((4,), -2.0), torch.full((4,), 2.0))


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    images = torch.randint(0, 255, (batch, 2, 3, 64, 64), dtype=torch.uint8)
    return images, torch.randn(batch, 27), torch.randint(0, 8, (batch, 12))


def test_each_stage_gives_one_tensor_of_the_documented_shape(make_model: MakeModel) -> None:
    model = make_model("flow")
    images, state, words = inputs()
    vision = model.vision(images)
    context = model.backbone(vision, state, words)
    chunk = model.act(context, torch.randn(2, 3, 16, 4), 4, BOUNDS)
    assert vision.shape == (2, 34, 48)
    assert context.shape == (2, 48, 48)
    assert chunk.shape == (2, 3, 16, 4)


def test_full_size_stays_under_twenty_million_parameters() -> None:
    model = ReferenceVLA(ModelConfig())
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters < 20_000_000
    assert len(model.head.blocks) >= 6


def test_a_fresh_head_predicts_zero_as_adaln_zero_asks(make_model: MakeModel) -> None:
    config = make_model("flow").config
    fresh = ReferenceVLA(config)
    conditioning = fresh.head.condition(torch.randn(1, 48, 48), torch.rand(1, 1))
    assert not fresh.head(torch.randn(1, 1, 16, 4), conditioning).any()


def test_samples_of_one_observation_do_not_touch_each_other(make_model: MakeModel) -> None:
    model, context = make_model("flow"), torch.randn(1, 48, 48)
    noise = torch.randn(1, 4, 16, 4)
    together = model.act(context, noise, 3, BOUNDS)
    alone = model.act(context, noise[:, 2:3], 3, BOUNDS)
    torch.testing.assert_close(together[:, 2:3], alone)


def test_instruction_and_state_and_image_each_change_the_action(make_model: MakeModel) -> None:
    model, noise = make_model("flow"), torch.randn(1, 1, 16, 4)
    images, state, words = inputs(1)

    def chunk(images: torch.Tensor, state: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return model.act(model.backbone(model.vision(images), state, words), noise, 2, BOUNDS)

    usual = chunk(images, state, words)
    assert not torch.equal(usual, chunk(255 - images, state, words))
    assert not torch.equal(usual, chunk(images, state + 1, words))
    assert not torch.equal(usual, chunk(images, state, (words + 1) % 8))


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_loss_falls_and_samples_come_near_the_data(objective: str, make_model: MakeModel) -> None:
    torch.manual_seed(0)
    model = make_model(objective)
    head = model.head.train()
    context = torch.randn(2, 48, 48)
    target = torch.sign(torch.randn(2, 1, 16, 4))
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    losses = []
    for _ in range(150):
        noise = torch.randn(2, 16, 16, 4)
        noisy, time, wanted = noisy_batch(objective, target, noise, torch.rand(2, 16))
        loss = (head(noisy, head.condition(context, time)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    head.eval()
    with torch.no_grad():
        chunk = sample(objective, head, context, torch.randn(2, 1, 16, 4), 16, BOUNDS)
    assert (chunk - target).abs().mean() < 0.5


def test_signal_levels_fall_from_nearly_one_to_nearly_zero() -> None:
    levels = signal_levels()
    assert (levels[1:] < levels[:-1]).all()
    assert levels[0] > 0.99
    assert levels[-1] < 0.01


@pytest.mark.parametrize(("objective", "steps"), [("ddpm", 101), ("ddpm", 1), ("flow", 0)])
def test_a_sampler_refuses_steps_that_it_cannot_take(
    objective: str, steps: int, make_model: MakeModel
) -> None:
    with pytest.raises(ValueError, match=rf"steps {steps} must lie in \d\.\.\d+ .*'{objective}'"):
        make_model(objective).act(torch.randn(1, 48, 48), torch.randn(1, 1, 16, 4), steps, BOUNDS)


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_the_chunk_stays_in_float32_between_the_steps_of_a_bfloat16_head(
    objective: str, make_model: MakeModel
) -> None:
    model = make_model(objective).bfloat16()
    context, noise = torch.randn(1, 48, 48).bfloat16(), torch.randn(1, 1, 16, 4)
    with torch.no_grad():
        chunk = model.act(context, noise, 4, BOUNDS)
    assert chunk.dtype == torch.float32
    assert not torch.equal(chunk, chunk.bfloat16().float())


def test_attention_of_a_training_step_on_a_cpu_runs_in_float32_under_autocast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, attend = Attention(16, 2), functional.scaled_dot_product_attention
    made: list[torch.dtype] = []

    def watched(*args: torch.Tensor) -> torch.Tensor:
        out = attend(*args)
        made.append(out.dtype)
        return out

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    x = torch.randn(1, 3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x, layer.remember(x))
        with torch.no_grad():
            layer(x, layer.remember(x))
    assert made == [torch.float32, torch.bfloat16]


def test_a_wrong_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="width 100 must be"):
        ModelConfig(width=100, heads=6)
    with pytest.raises(ValueError, match=r"unknown keys \['depth'\]"):
        ModelConfig.from_dict({"depth": 3})
