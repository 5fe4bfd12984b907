"""Things on the table that have nothing to do with the task: seen by the cameras, not touched."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import mujoco
import numpy as np

COUNT = 5
AREA_M = ((-0.40, 0.40), (0.42, 0.92))
"""x and y of the table, in sight of the corner camera."""
CLEAR_M = 0.11
"""Least distance from the way of the hand."""
SHAPES = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CYLINDER)


class Distractor(NamedTuple):
    """A coloured solid. size: (3,) half extents as MuJoCo takes them, m. position: (3,), m."""

    shape: int
    size: np.ndarray
    position: np.ndarray
    rgba: np.ndarray


def place(seed: int, way: np.ndarray) -> list[Distractor]:
    """``COUNT`` solids beside the way of the hand, (N, 3) points, m; fixed by the seed."""
    rng = np.random.default_rng([seed, 7])
    found: list[Distractor] = []
    for _ in range(1000):
        xy = np.array([rng.uniform(*bounds) for bounds in AREA_M])
        others = [d.position[:2] for d in found]
        near = _distance(xy, way[:, :2]) < CLEAR_M
        if near or any(np.linalg.norm(xy - other) < 0.09 for other in others):
            continue
        half = rng.uniform(0.02, 0.04, 3)
        shape = int(rng.choice(SHAPES))
        height = half[0] if shape == mujoco.mjtGeom.mjGEOM_SPHERE else half[2]
        if shape == mujoco.mjtGeom.mjGEOM_CYLINDER:
            half = np.array([half[0], half[2], 0.0])
            height = half[1]
        colour = np.append(rng.uniform(0.05, 0.95, 3), 1.0)
        found.append(Distractor(shape, half, np.append(xy, height), colour))
        if len(found) == COUNT:
            break
    return found


def draw(scene: mujoco.MjvScene, distractors: list[Distractor]) -> None:
    """Adds them to a scene that is about to be rendered; the physics never knows."""
    for item in distractors:
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom, item.shape, item.size, item.position, np.eye(3).ravel(), item.rgba.astype("f4")
        )
        scene.ngeom += 1


def _distance(point: np.ndarray, way: np.ndarray) -> float:
    """From a point (2,) to a line through points (N, 2)."""
    least = float(np.linalg.norm(point - way[0]))
    for a, b in pairwise(way):
        along = b - a
        share = np.clip((point - a) @ along / max(float(along @ along), 1e-9), 0.0, 1.0)
        least = min(least, float(np.linalg.norm(point - a - share * along)))
    return least
