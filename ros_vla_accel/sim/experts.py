"""Scripted experts, for demonstrations and as the ceiling that success is measured against.

Meta-World's own policies are tuned for a period of 12.5 ms; at 50 ms those of door-open,
pick-place and peg-insert-side press on before they are in place, and fail. These wait for it, and
start over after a slip. All are functions of the present scene alone: an expert can take over at
any time, as DAgger (arXiv:1011.0686) needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Expert = Callable[[np.ndarray], np.ndarray]
"""Meta-World observation (39,) -> action (4,) in [-1, 1], which may overshoot."""

OPEN, CLOSED = -1.0, 1.0


class Scene:
    """What an expert looks at, from a Meta-World observation (39,). Positions (3,) in m."""

    def __init__(self, obs: np.ndarray) -> None:
        self.hand = obs[0:3]
        self.opening = float(obs[3])  # of the gripper: 1 is open, about 0.3 closed on nothing
        self.object = obs[4:7]
        self.goal = obs[36:39]

    def move(self, target: np.ndarray, gain: float, gripper: float) -> np.ndarray:
        """Proportional motion of the hand; a gain of 1/m is 0.2 m/s per metre."""
        return np.array([*(gain * (target - self.hand)), gripper])


def _shifted(position: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return position + np.array([x, y, z])


def _distance_xy(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def open_drawer(obs: np.ndarray) -> np.ndarray:
    """Straddles the handle with open fingers, then pulls; goes up again when it has slipped."""
    scene = Scene(obs)
    handle = _shifted(scene.object, z=-0.02)
    above = scene.hand[2] - handle[2]
    away = _distance_xy(scene.hand, handle)
    if away > (0.03 if above > 0.05 else 0.06):
        return scene.move(_shifted(handle, z=0.15), 12.0, OPEN)
    if above > 0.05:
        return scene.move(handle, 12.0, OPEN)
    return scene.move(_shifted(handle, y=-0.06), 20.0, OPEN)


def press_button(obs: np.ndarray) -> np.ndarray:
    """Approaches low over the button, then presses: the original, higher, stretches the arm to
    its reach and waits there for the force to build up."""
    scene = Scene(obs)
    if _distance_xy(scene.hand, scene.object) > 0.03:
        return scene.move(_shifted(scene.object, z=0.075), 12.0, CLOSED)
    return scene.move(_shifted(scene.object, z=-0.05), 12.0, CLOSED)


def open_door(obs: np.ndarray) -> np.ndarray:
    """Comes down behind the handle, then drags it: the original descends onto the handle."""
    scene = Scene(obs)
    handle = scene.object
    behind = _shifted(handle, x=0.01, y=0.02)
    above = scene.hand[2] - handle[2]
    away = _distance_xy(scene.hand, behind)
    if away > (0.03 if above > 0.04 else 0.12):
        return scene.move(_shifted(behind, z=0.2), 15.0, CLOSED)
    if above > 0.04:
        return scene.move(behind, 15.0, CLOSED)
    return scene.move(_shifted(handle, x=-0.05), 25.0, CLOSED)


def open_window(obs: np.ndarray) -> np.ndarray:
    """Comes down on the left of the handle, then pushes it to the right."""
    scene = Scene(obs)
    beside = _shifted(scene.object, x=-0.03, y=-0.03, z=-0.08)
    above = scene.hand[2] - beside[2]
    away = _distance_xy(scene.hand, beside)
    if away > (0.03 if above > 0.03 else 0.06):
        return scene.move(_shifted(beside, z=0.2), 15.0, CLOSED)
    if above > 0.03:
        return scene.move(beside, 15.0, CLOSED)
    return scene.move(_shifted(beside, x=0.1), 15.0, CLOSED)


def pick_and_place(obs: np.ndarray) -> np.ndarray:
    """Closes only when low and steady over the puck: the original closes while it descends."""
    scene = Scene(obs)
    puck = _shifted(scene.object, x=-0.005)
    away = _distance_xy(scene.hand, puck)
    above = scene.hand[2] - puck[2]
    closed = scene.opening < 0.73
    if away > (0.04 if closed else 0.02):
        return scene.move(_shifted(puck, z=0.1), 12.0, OPEN)
    if above > 0.055:
        return scene.move(_shifted(puck, z=0.03), 12.0, OPEN)
    if not closed:
        return scene.move(_shifted(puck, z=0.035), 12.0, CLOSED)
    return scene.move(scene.goal, 12.0, CLOSED)


def insert_peg(obs: np.ndarray) -> np.ndarray:
    """Steers the peg, not the hand: lift, line up in front of the hole, push in."""
    scene = Scene(obs)
    peg = scene.object
    away = _distance_xy(scene.hand, peg)
    above = scene.hand[2] - peg[2]
    closed = scene.opening < 0.6
    if away > (0.04 if closed else 0.015):
        return scene.move(_shifted(peg, z=0.12), 20.0, OPEN)
    if above > 0.045:
        return scene.move(_shifted(peg, z=0.01), 20.0, OPEN)
    if not closed:
        return scene.move(_shifted(peg, z=0.01), 20.0, CLOSED)
    inserted = _shifted(scene.goal, x=0.11, z=0.01)
    in_front = _shifted(inserted, x=0.14)
    error = np.abs(peg - in_front)
    if error[2] > 0.03 and peg[0] > inserted[0] + 0.06:
        target = np.array([*peg[:2], in_front[2]])
    elif max(error[1], error[2]) > 0.01 and peg[0] > inserted[0] + 0.06:
        target = in_front
    else:
        target = inserted
    return scene.move(scene.hand + target - peg, 20.0, CLOSED)


EXPERTS: dict[str, Expert] = {
    "drawer-open-v3": open_drawer,
    "button-press-topdown-v3": press_button,
    "button-press-red-v3": press_button,
    "button-press-blue-v3": press_button,
    "door-open-v3": open_door,
    "window-open-v3": open_window,
    "pick-place-v3": pick_and_place,
    "peg-insert-side-v3": insert_peg,
}
"""By Meta-World task."""
