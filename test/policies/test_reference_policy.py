from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ros_vla_accel.contracts import Features, InferenceRequest, Observation, Policy
from ros_vla_accel.policies import reference

MakeRequest = Callable[..., InferenceRequest]


def test_it_keeps_the_contract(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint)
    assert isinstance(policy, Policy)
    chunk = policy.infer([request_for(observation)])[0]
    assert chunk.actions.shape == (16, 4)
    assert chunk.actions.dtype == np.float32
    assert (chunk.stamp_ns, chunk.request_id, chunk.episode_id) == (7, 5, 2)
    assert np.abs(chunk.actions[:, :3]).max() <= 0.2 + 1e-6
    assert set(chunk.timings_s) == {"vision", "backbone", "head", "total"}


@pytest.mark.parametrize("cut", ["vision", "backbone"])
def test_a_request_cut_after_a_stage_gets_the_same_actions_as_a_whole_one(
    cut: str, checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint)
    whole = policy.infer([request_for(observation)])[0]
    features = policy.encode(observation, cut)
    split = policy.infer([request_for(features)])[0]
    np.testing.assert_array_equal(split.actions, whole.actions)
    assert split.stamp_ns == observation.stamp_ns


def test_the_seed_alone_decides_the_noise(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    first = reference(checkpoint).infer([request_for(observation, seed=3)])[0].actions
    again = reference(checkpoint).infer([request_for(observation, seed=3)])[0].actions
    other = reference(checkpoint).infer([request_for(observation, seed=4)])[0].actions
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_mixed_batch_gives_what_each_request_gets_alone(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint)
    other = replace(observation, instruction="press the button")
    batch = [
        request_for(policy.encode(other, "vision"), seed=1),
        request_for(observation, seed=2),
        request_for(policy.encode(observation, "backbone"), seed=3),
        request_for(other, seed=4),
    ]
    for request, chunk in zip(batch, policy.infer(batch), strict=True):
        alone = policy.infer([request])[0]
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-5)


def test_no_requests_get_no_chunks(checkpoint: Path) -> None:
    assert reference(checkpoint).infer([]) == []


def test_large_images_are_shrunk_to_the_size_of_the_spec(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint)
    large = {k: v.repeat(4, 0).repeat(4, 1) for k, v in observation.images.items()}
    np.testing.assert_array_equal(
        policy.infer([request_for(replace(observation, images=large))])[0].actions,
        policy.infer([request_for(observation)])[0].actions,
    )


def test_every_width_runs_at_full_precision_and_says_so(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    request = replace(request_for(observation), activation_bits=4)
    assert reference(checkpoint).infer([request])[0].activation_bits == 16


def test_bfloat16_stays_close_to_float32(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    full = reference(checkpoint).infer([request_for(observation)])[0].actions
    half = reference(checkpoint, dtype="bfloat16").infer([request_for(observation)])[0].actions
    assert np.abs(full - half).mean() < 0.02


def wrong_inputs(observation: Observation) -> dict[str, tuple[Observation, str]]:
    images, image = observation.images, observation.images["corner2"]
    nan = observation.state.copy()
    nan[3] = np.nan
    return {
        "missing camera": (
            replace(observation, images={"corner2": image}),
            "no image of camera 'gripperPOV'",
        ),
        "float image": (
            replace(observation, images={**images, "corner2": image / 255.0}),
            r"camera 'corner2' is float64 \(64, 64, 3\)",
        ),
        "grey image": (
            replace(observation, images={**images, "corner2": image[..., 0]}),
            r"must be uint8 \(H, W, 3\)",
        ),
        "empty image": (
            replace(observation, images={**images, "corner2": image[:0]}),
            r"must be uint8 \(H, W, 3\)",
        ),
        "short state": (replace(observation, state=observation.state[:7]), r"\(9,\) in the order"),
        "double state": (
            replace(observation, state=observation.state.astype(np.float64)),
            "state is float64",
        ),
        "not finite": (replace(observation, state=nan), "state of j3 is not finite"),
        "no words": (replace(observation, instruction=" ?"), "has no words"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing camera",
        "float image",
        "grey image",
        "empty image",
        "short state",
        "double state",
        "not finite",
        "no words",
    ],
)
def test_a_wrong_observation_is_refused_by_name(
    case: str, checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    wrong, message = wrong_inputs(observation)[case]
    with pytest.raises(ValueError, match=message):
        reference(checkpoint).infer([request_for(wrong)])


def test_features_that_do_not_fit_are_refused_by_name(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy = reference(checkpoint)
    context = policy.encode(observation, "backbone").tensors["context"]
    seen = policy.encode(observation, "vision").tensors
    for features, message in (
        (Features("head", {}, 0), "cut after 'head'"),
        (Features("backbone", {}, 0), r"need 'context' \(48, 48\), got None"),
        (Features("backbone", {"context": context[:3]}, 0), r"got \(3, 48\)"),
        (Features("backbone", {"context": context * np.nan}, 0), "'context' are not finite"),
        (Features("vision", {**seen, "words": seen["words"] + 99}, 0), r"must lie in 0\.\.7"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.infer([request_for(features)])


def test_an_unknown_cut_is_refused(checkpoint: Path, observation: Observation) -> None:
    with pytest.raises(ValueError, match="cut 'head' is unknown"):
        reference(checkpoint).encode(observation, "head")


def test_wrong_arguments_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="dtype 'int8' is unknown"):
        reference(checkpoint, dtype="int8")
    for steps in (-1, 0):
        with pytest.raises(ValueError, match=f"steps {steps} must lie in 1"):
            reference(checkpoint, steps=steps)


@pytest.mark.parametrize("steps", [0, 1, 101])
def test_steps_that_ddim_cannot_take_are_refused_before_the_first_request(
    steps: int, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"steps {steps} must lie in 2\.\.100"):
        reference(make_checkpoint(tmp_path, "ddpm"), steps=steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_stages_are_timed_to_their_end_in_full_float32(
    checkpoint: Path, observation: Observation, request_for: MakeRequest
) -> None:
    policy, request = reference(checkpoint, device="cuda"), request_for(observation)
    policy.infer([request])
    chunk = policy.infer([request])[0]
    stages = sum(chunk.timings_s[name] for name in ("vision", "backbone", "head"))
    assert 0.8 * chunk.timings_s["total"] < stages <= chunk.timings_s["total"]
    on_cpu = reference(checkpoint).infer([request])[0]
    np.testing.assert_allclose(chunk.actions, on_cpu.actions, atol=1e-4)
    assert not torch.backends.cudnn.allow_tf32


def test_a_clock_reading_waits_for_the_device(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    policy = reference(checkpoint)
    policy._now()
    assert waited == []
    policy.device = torch.device("cuda")
    policy._now()
    assert waited == [torch.device("cuda")]


def test_a_diffusion_checkpoint_is_sampled_by_ddim(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    observation: Observation,
    request_for: MakeRequest,
) -> None:
    policy = reference(make_checkpoint(tmp_path, "ddpm"))
    assert policy.steps == 16
    assert np.isfinite(policy.infer([request_for(observation)])[0].actions).all()


def test_a_size_without_weights_says_so_and_still_depends_on_what_it_sees(
    observation: Observation, request_for: MakeRequest, caplog: pytest.LogCaptureFixture
) -> None:
    policy = reference(size="large", steps=1)
    assert "random weights" in caplog.text
    assert policy.spec.name == "reference-large-random-weights"
    assert 80e6 < sum(p.numel() for p in policy.model.parameters()) < 120e6
    seen = replace(observation, state=np.zeros(len(policy.spec.state_names), np.float32))
    other = replace(seen, images={k: 255 - v for k, v in seen.images.items()})
    first, second = (policy.infer([request_for(o)])[0].actions for o in (seen, other))
    assert not np.array_equal(first, second)


def test_a_size_is_no_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="size 'large' has random weights; leave checkpoint out"):
        reference(checkpoint, size="large")
    with pytest.raises(ValueError, match="size 'huge' is unknown"):
        reference(size="huge")
