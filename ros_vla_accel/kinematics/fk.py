"""Forward kinematics of the arm that ``robot_description`` describes, by Pinocchio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.joints import FloatArray


class ForwardKinematics:
    """Pose of a frame in the robot's root frame, from the joint positions of a ``JointSample``.

    urdf: the text of the URDF. joint_names: order of the positions; names that the URDF lacks
    are ignored (a gripper described elsewhere), but every moving joint between the root and the
    frame must be among them. frame: a link of the URDF; None takes the link that the most named
    joints move, the last one if several.

    Raises ImportError without Pinocchio, ValueError for a URDF, frame or joints that do not fit.
    """

    def __init__(self, urdf: str, joint_names: Sequence[str], frame: str | None = None) -> None:
        try:
            import pinocchio
        except ImportError as error:
            raise ImportError(
                "forward kinematics needs Pinocchio; `pip install 'ros_vla_accel[fk]'` or set "
                "`kinematics.source: joint`"
            ) from error
        self._pin: Any = pinocchio
        try:
            self._model: Any = pinocchio.buildModelFromXML(urdf)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"robot_description is not a readable URDF: {error}") from error
        self._data: Any = self._model.createData()
        chains = {
            item.name: [self._model.names[joint] for joint in self._chain(item.parentJoint)]
            for item in self._model.frames
            if item.type == pinocchio.FrameType.BODY
        }
        self.frame = self._choose(chains, joint_names, frame)
        chain = chains[self.frame]
        for joint in chain:
            if joint not in joint_names:
                raise ValueError(
                    f"joint '{joint}' moves '{self.frame}' but is not among the joint names "
                    f"({', '.join(joint_names)}); add it to the robot YAML or name another frame"
                )
        if not chain:
            raise ValueError(
                f"no joint of {', '.join(joint_names)} moves '{self.frame}'; check the joint "
                "names in the robot YAML against robot_description"
            )
        self._frame_id: int = self._model.getFrameId(self.frame)
        self._columns = [(self._joint(name), list(joint_names).index(name)) for name in chain]
        self._neutral: FloatArray = pinocchio.neutral(self._model)

    def _chain(self, joint_id: int) -> list[int]:
        """Ids of the joints from ``joint_id`` down to the root."""
        chain = []
        while joint_id > 0:
            chain.append(joint_id)
            joint_id = int(self._model.parents[joint_id])
        return chain

    @staticmethod
    def _choose(
        chains: dict[str, list[str]], joint_names: Sequence[str], frame: str | None
    ) -> str:
        if frame is not None:
            if frame not in chains:
                raise ValueError(
                    f"robot_description has no link '{frame}'; it has {', '.join(chains)}"
                )
            return frame
        moved_by = {
            link: len(chain) for link, chain in chains.items() if set(chain) <= set(joint_names)
        }
        most = max(moved_by.values(), default=0)
        return [link for link in moved_by or chains if moved_by.get(link, 0) == most][-1]

    def _joint(self, name: str) -> Any:
        joint = self._model.joints[self._model.getJointId(name)]
        if joint.nv != 1:
            raise ValueError(
                f"joint '{name}' has {joint.nv} degrees of freedom; only revolute, continuous "
                "and prismatic joints are supported"
            )
        return joint

    def pose(self, position: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Translation (3,) in m and rotation matrix (3, 3) for joint positions (n,), rad or m."""
        values = np.asarray(position, dtype=np.float64)
        configuration = self._neutral.copy()
        for joint, column in self._columns:
            value = values[column]
            if joint.nq == 2:  # A continuous joint is stored as a point on the circle.
                configuration[joint.idx_q : joint.idx_q + 2] = np.cos(value), np.sin(value)
            else:
                configuration[joint.idx_q] = value
        self._pin.forwardKinematics(self._model, self._data, configuration)
        placement = self._pin.updateFramePlacement(self._model, self._data, self._frame_id)
        return np.array(placement.translation), np.array(placement.rotation)
