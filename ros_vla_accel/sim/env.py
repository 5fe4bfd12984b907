"""Meta-World's Sawyer tasks at a control period of 50 ms, with cameras and joint samples.

Meta-World (https://github.com/Farama-Foundation/Metaworld) drags the arm by a mocap body and
moves it once per action. Here an action is a Cartesian velocity, and the mocap body follows it in
ticks of 10 ms, so that joint motion stays smooth inside the action.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import cv2
import mujoco
import numpy as np

from ros_vla_accel.sim.distractors import Distractor, draw
from ros_vla_accel.sim.experts import EXPERTS
from ros_vla_accel.sim.scenes import TwoButtons, make_world

TASKS = tuple(EXPERTS)
CAMERAS = ("corner2", "gripperPOV")
ARM_JOINTS = tuple(f"right_j{i}" for i in range(7))
JOINT_NAMES = (*ARM_JOINTS, "r_close", "l_close")

MAX_STEPS = 200
"""Actions per episode."""
TICK_S = 0.01
TICKS_PER_STEP = 5
STEP_S = TICK_S * TICKS_PER_STEP
MAX_SPEED_M_S = 0.2
"""Largest speed per axis: Meta-World's action limit of 1 cm, once per 50 ms."""
SETTLE_S = 1.0
"""How long the arm comes to rest before an episode."""
LEASH_M = 0.08
"""How far per axis the commanded hand may run ahead of a hand that is held up by contact."""

WORKSPACE_CENTRE = np.array([-0.03, 0.66, 0.14])
CORNER_FIELD_OF_VIEW_DEG = 28.0


class JointSample(NamedTuple):
    """Joints at one tick: rad (m for fingers), rad/s, and constraint force in Nm (N)."""

    time_s: float
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class Snapshot(NamedTuple):
    """Physics of one instant of an episode, and what the env knows besides."""

    seed: int
    physics: np.ndarray
    ticks: int
    success: bool


_EVERYTHING = mujoco.mjtState.mjSTATE_INTEGRATION


def full_task_name(task: str) -> str:
    """``drawer-open`` or ``drawer-open-v3`` -> ``drawer-open-v3``; ValueError if unknown."""
    name = task if task.endswith("-v3") else f"{task}-v3"
    if name not in TASKS:
        known = ", ".join(t.removesuffix("-v3") for t in TASKS)
        raise ValueError(f"unknown task '{task}'; choose one of {known}")
    return name


class SawyerEnv:
    """One task in MuJoCo, stepped by Cartesian velocities.

    An episode starts with ``reset(seed)``, which alone fixes the scene, whatever came before.
    The action is (4,): velocity x, y, z in m/s, clipped to ``MAX_SPEED_M_S`` per axis, and the
    gripper command, -1 (open) to 1 (closed). ``success`` stays true once the task was solved.
    ``distractors`` are drawn into the images until the next reset.

    Effort is ``qfrc_constraint``, not the actuator force: the arm is dragged by a weld, so this
    is where contact shows.
    """

    def __init__(
        self,
        task: str,
        cameras: tuple[str, ...] = CAMERAS,
        image_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.task = full_task_name(task)
        self.cameras = tuple(cameras)
        self.image_size = image_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._world = make_world(self.task)
        self._world._partially_observable = False
        self._world._set_task_called = True
        self._world._freeze_rand_vec = False
        self._world.seeded_rand_vec = True
        self.model: mujoco.MjModel = self._world.model
        self.data: mujoco.MjData = self._world.data
        self._check_cameras()
        self._aim_corner_camera()
        self._initial_body_pos = self.model.body_pos.copy()
        self._qpos = np.array([self.model.joint(n).qposadr[0] for n in JOINT_NAMES])
        self._qvel = np.array([self.model.joint(n).dofadr[0] for n in JOINT_NAMES])
        self._hand = self.model.body("hand").id
        self._frames_per_tick = round(TICK_S / self.model.opt.timestep)
        self._ahead = mujoco.MjData(self.model)
        self._renderer: mujoco.Renderer | None = None
        self._expert = EXPERTS[self.task]
        self.reset(seed)

    def _check_cameras(self) -> None:
        known = [self.model.camera(i).name for i in range(self.model.ncam)]
        for camera in self.cameras:
            if camera not in known:
                raise ValueError(f"no camera '{camera}' in {self.task}; there are {known}")

    def _aim_corner_camera(self) -> None:
        """Turns ``corner2`` upright and towards the work space, which is small in its image."""
        camera = self.model.camera("corner2")
        back = camera.pos - WORKSPACE_CENTRE
        back /= np.linalg.norm(back)
        right = np.cross((0.0, 0.0, 1.0), back)
        right /= np.linalg.norm(right)
        axes = np.stack((right, np.cross(back, right), back), axis=1)
        mujoco.mju_mat2Quat(camera.quat, axes.ravel())
        camera.fovy[:] = CORNER_FIELD_OF_VIEW_DEG

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The 7 arm joints, then the two finger slides."""
        return JOINT_NAMES

    @property
    def state_names(self) -> tuple[str, ...]:
        """Order of ``state()``: joint positions by joint name."""
        return JOINT_NAMES

    @property
    def time_s(self) -> float:
        """Seconds since the reset."""
        return self._ticks * TICK_S

    def reset(self, seed: int) -> None:
        """Starts an episode in the scene of ``seed``."""
        self.seed = seed
        self.success = False
        self.samples: list[JointSample] = []
        self.distractors: list[Distractor] = []
        self._ticks = 0
        # Meta-World moves bodies in the model: without this the last scene would leak into this.
        self.model.body_pos[:] = self._initial_body_pos
        mujoco.mj_resetData(self.model, self.data)
        self._world.seed(seed)
        self._world.curr_path_length = 0
        self._world.reset_model()
        # Meta-World leaves the elbow still swinging, at up to 1 rad/s.
        self.data.ctrl[:] = (-1.0, 1.0)
        mujoco.mj_step(self.model, self.data, round(SETTLE_S / self.model.opt.timestep))
        mujoco.mj_forward(self.model, self.data)

    def advance(self, velocity_xyz: np.ndarray, gripper: float, ticks: int = 1) -> None:
        """Moves on by ``ticks`` of 10 ms under one command; appends to ``samples``.

        velocity_xyz: (3,) m/s. ValueError when a command is not finite.
        """
        command = np.array([*velocity_xyz, gripper], dtype=np.float64)
        if not np.isfinite(command).all():
            raise ValueError(f"command {command.tolist()} is not finite")
        shift = np.clip(command[:3], -MAX_SPEED_M_S, MAX_SPEED_M_S) * TICK_S
        grip = float(np.clip(command[3], -1.0, 1.0))
        data = self.data
        data.ctrl[:] = (grip, -grip)
        for _ in range(ticks):
            hand = data.xpos[self._hand]
            target = np.clip(data.mocap_pos[0] + shift, hand - LEASH_M, hand + LEASH_M)
            data.mocap_pos[0] = np.clip(target, self._world.mocap_low, self._world.mocap_high)
            data.mocap_quat[0] = (1.0, 0.0, 1.0, 0.0)
            mujoco.mj_step(self.model, data, self._frames_per_tick)
            self._ticks += 1
            self.samples.append(JointSample(self.time_s, *self.joints()))

    def step(self, action: np.ndarray) -> None:
        """One action of 50 ms; afterwards ``samples`` holds its five ticks."""
        self.samples = []
        self.advance(action[:3], float(action[3]), TICKS_PER_STEP)
        self.check_success(float(action[3]))

    def check_success(self, gripper: float = 0.0) -> bool:
        """Latches ``success``; called once per action, since it costs as much as a tick."""
        mujoco.mj_forward(self.model, self.data)
        if not self.success:
            action = np.array([0.0, 0.0, 0.0, gripper], dtype=np.float32)
            _, info = self._world.evaluate_state(self._world._get_obs(), action)
            self.success = bool(info["success"])
        return self.success

    def joints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position, velocity and effort, each (9,) float64, in the order of ``joint_names``."""
        data = self.data
        return data.qpos[self._qpos], data.qvel[self._qvel], data.qfrc_constraint[self._qvel]

    def state(self) -> np.ndarray:
        """What a policy is told of the robot: (9,) float32, in the order of ``state_names``."""
        return self.data.qpos[self._qpos].astype(np.float32)

    def privileged(self) -> dict[str, np.ndarray]:
        """Positions that only a simulator knows, float32, m: hand, object and goal (3,), and
        landmarks (6,): the red and the blue button, zeros where there are none."""
        obs, landmarks = self._world._get_obs(), np.zeros(6)
        if isinstance(self._world, TwoButtons):
            landmarks = np.concatenate(list(self._world.buttons().values()))
        return {
            "hand": obs[:3].astype(np.float32),
            "object": obs[4:7].astype(np.float32),
            "goal": obs[-3:].astype(np.float32),
            "landmarks": landmarks.astype(np.float32),
        }

    @property
    def can_be_misread(self) -> bool:
        """Whether another instruction makes sense in the same scene."""
        return isinstance(self._world, TwoButtons)

    def expert_action(self, misread: bool = False) -> np.ndarray:
        """What the scripted expert does now, (4,) float32, in the units of ``step``.

        misread: what it would do under the other instruction, where ``can_be_misread``.
        """
        obs = self._world._get_obs()
        action = np.clip(self._expert(self._world.misread(obs) if misread else obs), -1.0, 1.0)
        action[:3] *= MAX_SPEED_M_S
        return action.astype(np.float32)

    def expert_plan(self, rows: int) -> np.ndarray:
        """What the scripted expert would do from here on, (rows, 4) float32, by simulating it.

        A copy of the state runs ahead; the episode itself is not touched.
        """
        mine, ticks, samples = self.data, self._ticks, self.samples
        mujoco.mj_setState(self.model, self._ahead, self._physics(), _EVERYTHING)
        mujoco.mj_forward(self.model, self._ahead)
        plan = np.empty((rows, 4), np.float32)
        try:
            self.data = self._world.data = self._ahead
            for row in range(rows):
                plan[row] = self.expert_action()
                self.samples = []
                self.advance(plan[row, :3], float(plan[row, 3]), TICKS_PER_STEP)
                mujoco.mj_forward(self.model, self.data)
        finally:
            self.data = self._world.data = mine
            self._ticks, self.samples = ticks, samples
        return plan

    def _physics(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self.model, _EVERYTHING))
        mujoco.mj_getState(self.model, self.data, state, _EVERYTHING)
        return state

    def snapshot(self) -> Snapshot:
        """All that an episode may go on from, for ``restore`` in the same episode."""
        return Snapshot(self.seed, self._physics(), self._ticks, self.success)

    def restore(self, snapshot: Snapshot) -> None:
        """Goes back to a snapshot. ValueError for one of another episode."""
        if snapshot.seed != self.seed:
            raise ValueError(f"snapshot is of scene {snapshot.seed}, the env is in {self.seed}")
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _EVERYTHING)
        mujoco.mj_forward(self.model, self.data)
        self._ticks, self.success, self.samples = snapshot.ticks, snapshot.success, []

    def render(self, camera: str) -> np.ndarray:
        """(image_size, image_size, 3) uint8, RGB. Always call it from one and the same thread."""
        if self._renderer is None:
            self._renderer = self._make_renderer()
        self._renderer.update_scene(self.data, camera=camera)
        draw(self._renderer.scene, self.distractors)
        image = self._renderer.render()
        if len(image) != self.image_size:
            size = (self.image_size, self.image_size)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image

    def _make_renderer(self) -> mujoco.Renderer:
        # Without a GPU, shadows and reflections take most of an image's time, and four samples
        # per pixel in the rasterizer cost twice as much as four pixels averaged afterwards. So
        # an image of 128 pixels, shrunk by area, is exactly the image of 64 pixels.
        size = self.image_size if self.image_size >= 128 else 2 * self.image_size
        visual = self.model.vis
        visual.quality.offsamples = 0
        visual.global_.offwidth = max(visual.global_.offwidth, size)
        visual.global_.offheight = max(visual.global_.offheight, size)
        renderer = mujoco.Renderer(self.model, size, size)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return renderer

    def close(self) -> None:
        """Frees the rendering context, in the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._world.close()
