"""A URDF of the simulated arm, made from the MuJoCo model that moves it.

Real Sawyer descriptions differ from Meta-World's arm (gripper, tool offset), so the forward
kinematics of anything but this model would be off by centimetres.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import mujoco
import numpy as np
from metaworld.asset_path_utils import full_V3_path_for

ROOT_LINK = "base"
END_EFFECTOR_LINK = "hand"
_LEAVES = (END_EFFECTOR_LINK, "rightclaw", "leftclaw")

# Peak effort (Nm, N) and speed (rad/s, m/s). The arm's are those of Rethink's data sheet; MuJoCo
# has no such limits.
_LIMITS = {
    "right_j0": (80.0, 1.74),
    "right_j1": (80.0, 1.328),
    "right_j2": (40.0, 1.957),
    "right_j3": (40.0, 1.957),
    "right_j4": (9.0, 3.485),
    "right_j5": (9.0, 3.485),
    "right_j6": (9.0, 4.545),
    "r_close": (16.0, 0.5),
    "l_close": (16.0, 0.5),
}
_JOINT_TYPES = {
    int(mujoco.mjtJoint.mjJNT_HINGE): "revolute",
    int(mujoco.mjtJoint.mjJNT_SLIDE): "prismatic",
}


def sawyer_urdf() -> str:
    """URDF from ``base`` to ``hand`` and the two fingers, without meshes.

    Links and joints have MuJoCo's names, so joint_states of ``sim_robot`` fit it as they are.
    """
    model = mujoco.MjModel.from_xml_path(full_V3_path_for("sawyer_xyz/sawyer_drawer.xml"))
    robot = ET.Element("robot", name="sawyer")
    for body_id in _bodies(model):
        body = model.body(body_id)
        _add_link(robot, model, body_id)
        if body.name != ROOT_LINK:
            _add_joint(robot, model, body_id)
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode", xml_declaration=True)


def _bodies(model: mujoco.MjModel) -> list[int]:
    """Ids of the bodies between the root and the leaves, parents first."""
    root = model.body(ROOT_LINK).id
    found = {root}
    for leaf in _LEAVES:
        body_id = model.body(leaf).id
        while body_id != root:
            found.add(body_id)
            body_id = int(model.body_parentid[body_id])
    return sorted(found)


def _add_link(robot: ET.Element, model: mujoco.MjModel, body_id: int) -> None:
    link = ET.SubElement(robot, "link", name=model.body(body_id).name)
    mass = float(model.body_mass[body_id])
    if mass < 1e-6:
        return
    inertial = ET.SubElement(link, "inertial")
    _add_origin(inertial, model.body_ipos[body_id], model.body_iquat[body_id])
    ET.SubElement(inertial, "mass", value=f"{mass:.6g}")
    ixx, iyy, izz = (f"{value:.6g}" for value in model.body_inertia[body_id])
    ET.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")


def _add_joint(robot: ET.Element, model: mujoco.MjModel, body_id: int) -> None:
    body = model.body(body_id)
    parent = model.body(int(model.body_parentid[body_id])).name
    moving = int(model.body_jntnum[body_id]) > 0
    joint_id = int(model.body_jntadr[body_id])
    name = model.joint(joint_id).name if moving else f"{body.name}_fixed"
    kind = _JOINT_TYPES[int(model.jnt_type[joint_id])] if moving else "fixed"
    joint = ET.SubElement(robot, "joint", name=name, type=kind)
    _add_origin(joint, model.body_pos[body_id], model.body_quat[body_id])
    ET.SubElement(joint, "parent", link=parent)
    ET.SubElement(joint, "child", link=body.name)
    if not moving:
        return
    ET.SubElement(joint, "axis", xyz=_numbers(model.jnt_axis[joint_id]))
    lower, upper = model.jnt_range[joint_id]
    effort, velocity = _LIMITS[name]
    ET.SubElement(
        joint,
        "limit",
        lower=f"{lower:.6g}",
        upper=f"{upper:.6g}",
        effort=f"{effort:g}",
        velocity=f"{velocity:g}",
    )


def _add_origin(element: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    rpy = _roll_pitch_yaw(quaternion)
    ET.SubElement(element, "origin", xyz=_numbers(position), rpy=_numbers(rpy))


def _roll_pitch_yaw(quaternion: np.ndarray) -> tuple[float, float, float]:
    """Fixed-axis angles of a quaternion (w, x, y, z), gimbal lock included."""
    r = np.empty(9)
    mujoco.mju_quat2Mat(r, np.asarray(quaternion) / np.linalg.norm(quaternion))
    cos_pitch = math.hypot(r[0], r[3])
    pitch = math.atan2(-r[6], cos_pitch)
    if cos_pitch < 1e-9:
        return math.atan2(-r[5], r[4]), pitch, 0.0
    return math.atan2(r[7], r[8]), pitch, math.atan2(r[3], r[0])


def _numbers(values: np.ndarray | tuple[float, ...]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
