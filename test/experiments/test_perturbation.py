from __future__ import annotations

import numpy as np
import pytest

from ros_vla_accel.experiments.perturbation import PERTURBATIONS, Perturbation

GREY = np.full((16, 16, 3), 120, np.uint8)


def test_nothing_is_changed_unless_asked_for() -> None:
    assert Perturbation("none", 0)(GREY) is GREY


@pytest.mark.parametrize("kind", PERTURBATIONS[1:])
def test_a_seed_gives_one_change_and_another_seed_another(kind: str) -> None:
    changed = [Perturbation(kind, seed)(GREY) for seed in (0, 0, 1, 2, 3, 4)]
    np.testing.assert_array_equal(changed[0], changed[1])
    assert any(not np.array_equal(changed[0], other) for other in changed[2:])
    assert all(image.dtype == np.uint8 for image in changed)


def test_noise_has_its_strength_and_no_bias() -> None:
    image = np.full((128, 128, 3), 128, np.uint8)
    difference = Perturbation("noise", 0)(image).astype(float) - image
    assert abs(difference.mean()) < 0.5
    assert difference.std() == pytest.approx(20, rel=0.05)


def test_brightness_is_the_same_for_all_images_of_an_episode_and_goes_both_ways() -> None:
    levels = set()
    for seed in range(12):
        perturb = Perturbation("brightness", seed)
        first, second = perturb(GREY), perturb(GREY)
        np.testing.assert_array_equal(first, second)
        levels.add(int(first[0, 0, 0]))
    assert levels == {78, 162}


def test_colour_changes_the_channels_differently_by_at_most_a_fifth() -> None:
    pixel = Perturbation("colour", 3)(GREY)[0, 0].astype(float) / 120
    assert np.ptp(pixel) > 0.01
    assert np.abs(pixel - 1).max() <= 0.2 + 0.01
