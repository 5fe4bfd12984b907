"""The URDF moves like the simulated arm."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from ros_vla_accel.sim.env import JOINT_NAMES, SawyerEnv
from ros_vla_accel.sim.urdf import END_EFFECTOR_LINK, sawyer_urdf


def test_every_joint_of_joint_states_is_in_it() -> None:
    robot = ET.fromstring(sawyer_urdf())
    moving = [j.get("name") for j in robot.iter("joint") if j.get("type") != "fixed"]
    assert sorted(moving) == sorted(JOINT_NAMES)


def test_forward_kinematics_equals_mujocos_within_a_millimetre() -> None:
    pin = pytest.importorskip("pinocchio")
    model = pin.buildModelFromXML(sawyer_urdf())
    data = model.createData()
    frame = model.getFrameId(END_EFFECTOR_LINK)
    env = SawyerEnv("drawer-open", seed=2)
    for _ in range(25):
        env.step(env.expert_action())
        q = pin.neutral(model)
        for name, value in zip(JOINT_NAMES, env.joints()[0], strict=True):
            q[model.joints[model.getJointId(name)].idx_q] = value
        pin.framesForwardKinematics(model, data, q)
        hand = env.data.body("hand")
        np.testing.assert_allclose(data.oMf[frame].translation, hand.xpos, atol=1e-3)
        np.testing.assert_allclose(data.oMf[frame].rotation.ravel(), hand.xmat, atol=1e-3)
