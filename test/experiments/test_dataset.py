from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.experiments.collect import Disturbance, Episode
from ros_vla_accel.experiments.dataset import TrainingSet, augment, load_episodes
from ros_vla_accel.policies.text import WordTokenizer

LIMITS = ([-0.2, -0.2, -0.2, -1.0], [0.2, 0.2, 0.2, 1.0])


MakeEpisode = Callable[..., Episode]


def test_a_frames_label_is_the_experts_plan_whatever_moved_the_arm(episode: MakeEpisode) -> None:
    pushed = episode()
    pushed.expert_driven[:] = False
    frames = TrainingSet([pushed], 8, WordTokenizer(["open"], 4), None, LIMITS)
    labels = frames.draw(np.random.default_rng(0), 40, {}).actions[:, 0].numpy()
    plans = frames.normalization.normalize(pushed.plan[:, :8])
    assert all(any(np.array_equal(label, plan) for plan in plans) for label in labels)


def test_plans_that_are_shorter_than_the_horizon_are_refused(episode: MakeEpisode) -> None:
    with pytest.raises(ValueError, match="plans of 16 rows, the policy's horizon is 20"):
        TrainingSet([episode()], 20, WordTokenizer(["open"], 4), None, LIMITS)


def test_episodes_come_back_from_disk(episode: MakeEpisode, tmp_path: Path) -> None:
    saved = episode()
    saved.save(tmp_path / "a.npz")
    (found,) = load_episodes(tmp_path)
    assert (found.task, found.seed) == (saved.task, saved.seed)
    np.testing.assert_array_equal(found.images, saved.images)
    np.testing.assert_array_equal(found.expert_driven, saved.expert_driven)
    np.testing.assert_array_equal(found.plan, saved.plan)


def test_an_unfinished_episode_is_not_read(episode: MakeEpisode, tmp_path: Path) -> None:
    episode().save(tmp_path / "a.npz")
    (tmp_path / "b.partial.npz").write_bytes(b"half")
    assert len(load_episodes(tmp_path)) == 1


def test_batches_have_documented_shapes_and_repeat_with_the_seed(episode: MakeEpisode) -> None:
    words = WordTokenizer.from_texts(["open the drawer"], 12)
    frames = TrainingSet([episode()], 16, words, None, LIMITS)
    first = frames.draw(np.random.default_rng(0), 6, {})
    again = frames.draw(np.random.default_rng(0), 6, {})
    assert first.images.shape == (6, 2, 3, 64, 64)
    assert first.state.shape == (6, 27)
    assert first.words.shape == (6, 12)
    assert first.actions.shape == (6, 1, 16, 4)
    assert (first.images == again.images).all()
    assert (first.actions == again.actions).all()


def test_tasks_are_drawn_by_their_weight(episode: MakeEpisode) -> None:
    words = WordTokenizer.from_texts(["open"], 12)
    # The door's proprioception is constant, so that its frames can be told apart.
    door = episode("door-open-v3")
    door.privileged[:] = 100.0
    frames = TrainingSet([episode(), door], 16, words, None, LIMITS)
    only = frames.draw(np.random.default_rng(0), 50, {"drawer-open": 0.0})
    assert (only.privileged > 0.9).all()


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="no episodes to train on"):
        TrainingSet([], 16, WordTokenizer(["a"], 4), None, LIMITS)


def test_augmentation_keeps_range_and_shape(episode: MakeEpisode) -> None:
    images = episode().images[:4].transpose(0, 1, 4, 2, 3)
    out = augment(images, np.random.default_rng(0))
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 255


def test_bursts_are_marked_as_not_the_experts_doing() -> None:
    wanted = np.array([0.1, 0.0, 0.0, 1.0])
    driven, near = [], []
    for seed in range(20):
        disturb = Disturbance(np.random.default_rng(seed))
        for _ in range(60):
            executed, ok = disturb(wanted)
            driven.append(ok)
            if ok:
                near.append(executed[3])
    assert 0 < np.mean(np.logical_not(driven)) < 0.5
    assert set(near) == {1.0}
