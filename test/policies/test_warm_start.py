"""A chunk that begins at the one in play costs fewer steps, and is thrown away if it drifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.contracts import AcceleratedPolicy, ActionChunk, InferenceRequest, Observation
from ros_vla_accel.policies import reference
from ros_vla_accel.policies.warm_start import WarmStart


class Counting:
    """Counts the denoising steps of a policy."""

    def __init__(self, policy) -> None:
        self.policy, self.steps = policy, 0
        policy.model.head.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.steps += 1

    def infer(self, *requests: InferenceRequest) -> tuple[list[ActionChunk], int]:
        self.steps = 0
        return self.policy.infer(list(requests)), self.steps


@pytest.fixture
def asked(observation: Observation) -> InferenceRequest:
    return InferenceRequest(observation, request_id=1, episode_id=1, seed=5)


def following(asked: InferenceRequest, chunk: ActionChunk, executed: int = 4) -> InferenceRequest:
    return replace(asked, request_id=2, seed=6, previous=chunk, executed_rows=executed)


def test_it_skips_its_share_of_the_steps_and_stays_near_the_chunk_in_play(checkpoint, asked):
    cold, warm = (Counting(reference(checkpoint, warm_start=w)) for w in (0.0, 0.8))
    assert isinstance(cold.policy, AcceleratedPolicy)
    (first,), _ = cold.infer(asked)
    (again,), steps = cold.infer(following(asked, first))
    assert steps == 10
    (begun,), steps = warm.infer(following(asked, first))
    assert steps == 2
    assert warm.policy.cold_restarts == 0
    near, far = (np.abs(c.actions[:12] - first.actions[4:]).mean() for c in (begun, again))
    assert near < far


def test_what_cannot_be_continued_begins_at_noise(checkpoint, asked):
    warm = Counting(reference(checkpoint, warm_start=0.8))
    (first,), steps = warm.infer(asked)
    assert steps == 10
    for request in (
        following(asked, first, executed=0),
        following(asked, first, executed=9),
        following(replace(asked, episode_id=2), first),
    ):
        (chunk,), steps = warm.infer(request)
        assert steps == 10
        (expected,), _ = warm.infer(replace(request, previous=None))
        np.testing.assert_array_equal(chunk.actions, expected.actions)


def test_a_chunk_that_drifted_is_made_again_from_noise(checkpoint, asked):
    warm = Counting(reference(checkpoint, warm_start=0.8))
    (first,), _ = warm.infer(asked)
    away = replace(first, actions=-first.actions + np.float32(0.15))
    (chunk,), steps = warm.infer(following(asked, away))
    assert (steps, warm.policy.cold_restarts) == (12, 1)
    (expected,), _ = warm.infer(replace(asked, request_id=2, seed=6))
    np.testing.assert_array_equal(chunk.actions, expected.actions)


def test_warm_and_cold_requests_share_a_batch(checkpoint, asked):
    warm = Counting(reference(checkpoint, warm_start=0.8))
    (first,), _ = warm.infer(asked)
    batch = [asked, following(asked, first), replace(asked, seed=9)]
    together, _ = warm.infer(*batch)
    for request, chunk in zip(batch, together, strict=True):
        (alone,), _ = warm.infer(request)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-5)


def test_the_cache_and_the_warm_start_can_be_set_later_and_taken_back(checkpoint, asked):
    policy = Counting(reference(checkpoint))
    plain, _ = policy.infer(asked)
    assert np.isnan(policy.policy.reused())
    policy.policy.accelerate({"budget": 0.0, "interval": 5}, 0.8)
    _, steps = policy.infer(following(asked, plain[0]))
    assert steps == 2
    policy.infer(asked)
    assert 0.3 < policy.policy.reused() < 1
    policy.policy.accelerate(None, 0.0)
    after, _ = policy.infer(asked)
    np.testing.assert_array_equal(after[0].actions, plain[0].actions)


def test_senseless_settings_are_named_and_change_nothing(checkpoint, asked):
    policy = reference(checkpoint)
    with pytest.raises(ValueError, match=r"warm_start 1\.0 must lie in 0\.\.1"):
        policy.accelerate(None, 1.0)
    with pytest.raises(ValueError, match=r"budget 2\.0"):
        policy.accelerate({"budget": 2.0}, 0.0)
    with pytest.raises(ValueError, match="bugdet"):
        policy.accelerate({"bugdet": 0.5}, 0.0)
    with pytest.raises(ValueError, match="method 'none' is unknown; choose from"):
        policy.accelerate({"method": "none"}, 0.0)
    assert np.isnan(policy.reused())


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "moeca"},
        {"method": "fora"},
        {"method": "taylorseer", "order": 2},
        {"method": "tokens"},
        {"method": "first_block", "threshold": 5.0},
    ],
    ids=lambda s: s["method"],
)
def test_any_method_is_a_setting(checkpoint, asked, settings):
    policy = reference(checkpoint, cache=settings)
    chunk = policy.infer([asked])[0]
    assert policy.reused() > 0
    policy.accelerate(None, 0.0)
    policy.accelerate({**settings, "interval": 1}, 0.0)
    assert policy.reused() == 0
    exact = policy.infer([asked])[0]
    policy.accelerate(None, 0.0)
    assert np.array_equal(policy.infer([asked])[0].actions, exact.actions)
    assert np.abs(chunk.actions - exact.actions).max() < 2.0


def test_branches_are_handed_on_within_an_episode(checkpoint, asked):
    plain = reference(checkpoint)
    policy = reference(checkpoint, cache={"budget": 1.0, "across": 0.3})
    first = policy.infer([asked])[0]
    again = policy.infer([replace(asked, seed=6)])[0]
    assert 0.4 < policy.reused() < 0.51
    np.testing.assert_allclose(again.actions, first.actions, atol=1e-5)
    episode_noise = plain.infer([replace(asked, seed=asked.episode_id)])[0]
    np.testing.assert_allclose(first.actions, episode_noise.actions, atol=1e-5)
    for change in ({"episode_id": 2}, {"episode_id": 1}):
        before = policy.reused()
        policy.infer([replace(asked, **change)])
        assert policy.reused() < before  # Another episode came between.
    policy.reset(1)
    before = policy.reused()
    policy.infer([asked])
    assert policy.reused() < before


def test_robots_of_a_batch_hand_on_while_they_stay_together(checkpoint, asked):
    policy = reference(checkpoint, cache={"budget": 1.0, "across": 0.3})
    other = replace(asked, episode_id=2)
    policy.infer([asked, other])
    policy.infer([other, asked])
    assert policy.reused() == 0
    policy.infer([other, asked])
    assert policy.reused() > 0.3


def test_a_diffusion_policy_starts_warm_too(tmp_path: Path, make_checkpoint, asked):
    warm = Counting(reference(make_checkpoint(tmp_path / "ddpm", "ddpm"), warm_start=0.5))
    (first,), steps = warm.infer(asked)
    assert steps == 16
    warm.policy._warm = WarmStart(0.5, drift=np.inf)
    (_,), steps = warm.infer(following(asked, first))
    assert steps == 8
