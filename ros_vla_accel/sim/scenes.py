"""Scenes in which only the instruction tells what to do: two buttons, one red and one blue."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.envs.sawyer_button_press_topdown_v3 import SawyerButtonPressTopdownEnvV3

COLOURS = {"red": (0.6, 0.0, 0.0, 1.0), "blue": (0.0, 0.15, 0.85, 1.0)}
BUTTON_HEIGHT_M = 0.115
CAP_HEIGHT_M = 0.193
"""From the origin of Meta-World's button to its cap."""
PRESSED_M = 0.02
"""Travel of the other button from which on the wrong one was pressed; it has 6 cm."""


class TwoButtons(SawyerButtonPressTopdownEnvV3):
    """Meta-World's button, twice: the task is to press the one of ``colour``, and only that.

    A seed lays out the same scene for either colour: where the left and the right button stand,
    and which of them is red. A policy that does not read is right half of the time.
    """

    def __init__(self, colour: str) -> None:
        self.colour = colour
        super().__init__()
        # Left x and y, right x and y, and a coin that says whether red is on the left.
        self._random_reset_space = Box(
            np.array([-0.3, 0.78, 0.18, 0.78, 0.0]), np.array([-0.18, 0.88, 0.3, 0.88, 1.0])
        )

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        scene = mujoco.MjSpec.from_file(self.fullpath)
        again = mujoco.MjSpec.from_file(self.fullpath)
        scene.worldbody.add_frame().attach_body(again.body("box"), "other_", "")
        model = scene.compile()
        return model, mujoco.MjData(model)

    def reset_model(self) -> np.ndarray:
        *places, coin = self._get_state_rand_vec()
        left, right = (np.array([*xy, BUTTON_HEIGHT_M]) for xy in (places[:2], places[2:]))
        red, blue = (left, right) if coin < 0.5 else (right, left)
        target, other = (red, blue) if self.colour == "red" else (blue, red)
        self._pressed_other = False
        self._reset_hand()
        self.obj_init_pos = target
        for prefix, place in (("", target), ("other_", other)):
            colour = "red" if place is red else "blue"
            self.model.body(f"{prefix}box").pos = place
            self.model.mat(f"{prefix}btn_red").rgba = COLOURS[colour]
        mujoco.mj_forward(self.model, self.data)
        self._target_pos = self._get_site_pos("hole")
        self._obj_to_target_init = abs(self._target_pos[2] - self._get_site_pos("buttonStart")[2])
        return self._get_obs()

    def buttons(self) -> dict[str, np.ndarray]:
        """Where the red and the blue button are pressed, (3,) each, m."""
        target, other = (
            self.get_body_com(name) + np.array([0.0, 0.0, CAP_HEIGHT_M])
            for name in ("button", "other_button")
        )
        named = (target, other) if self.colour == "red" else (other, target)
        return dict(zip(COLOURS, named, strict=True))

    def misread(self, obs: np.ndarray) -> np.ndarray:
        """The observation of one who was told the other colour."""
        obs = obs.copy()
        obs[4:7] = self.buttons()["blue" if self.colour == "red" else "red"]
        return obs

    def evaluate_state(self, obs: np.ndarray, action: np.ndarray) -> tuple[float, dict[str, Any]]:
        """As Meta-World's, but never a success once the other button was pressed."""
        reward, info = super().evaluate_state(obs, action)
        travel = -float(self.data.joint("other_btnbox_joint").qpos[0])
        self._pressed_other |= travel > PRESSED_M
        info["success"] = float(info["success"] and not self._pressed_other)
        return reward, info


def make_world(task: str) -> Any:
    """The Meta-World environment of a task (with ``-v3``), or one of the two buttons."""
    if task in CHOICE_TASKS:
        return TwoButtons(CHOICE_TASKS[task])
    return ALL_V3_ENVIRONMENTS[task]()


CHOICE_TASKS = {f"button-press-{colour}-v3": colour for colour in COLOURS}
"""Tasks that share their scenes, seed by seed."""
