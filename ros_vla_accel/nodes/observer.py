"""The newest image of each camera and the joint state nearest to it, as one observation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ros_vla_accel.contracts import Observation, PolicySpec
from ros_vla_accel.control.robot_config import RobotConfig, RobotConfigError
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.kinematics.signals import SignalBuffer
from ros_vla_accel.nodes.convert import to_ns
from ros_vla_accel.nodes.images import ImageError, decode_compressed, decode_raw


class InputError(ValueError):
    """No observation can be made now; the text names the input and what is wrong with it."""


@dataclass(frozen=True)
class ObserverConfig:
    """Limits of age.

    image_max_age_s: an image older than this stops inference, on the clock of its stamp and,
        for a camera that went silent, on the steady clock since it arrived.
    camera_skew_s: largest difference between the stamps of two cameras.
    joint_tolerance_s: largest distance of the joint state from the images, in time.
    """

    image_max_age_s: float = 0.5
    camera_skew_s: float = 0.2
    joint_tolerance_s: float = 0.1


class Observer:
    """Keeps the newest message of each camera and decodes it only when it is wanted."""

    def __init__(
        self, spec: PolicySpec, robot: RobotConfig, joints: SignalBuffer, config: ObserverConfig
    ) -> None:
        self._spec = spec
        self._robot = robot
        self._joints = joints
        self._config = config
        self._newest: dict[str, tuple[Any, float]] = {}

    def on_image(self, camera: str, msg: Any) -> None:
        """Takes a sensor_msgs Image or CompressedImage. Cheap: nothing is decoded here."""
        self._newest[camera] = (msg, time.monotonic())

    def newest_stamp_ns(self, now_ns: int) -> int:
        """Stamp of the observation that could be made now, the oldest camera's.

        Raises InputError naming the first input that is missing, stale or out of step. Decodes
        nothing.
        """
        stamps = {
            camera.name: to_ns(self._fresh(camera.name, now_ns).header.stamp)
            for camera in self._spec.cameras
        }
        stamp_ns = min(stamps.values(), default=now_ns)
        skew_s = (max(stamps.values(), default=now_ns) - stamp_ns) * 1e-9
        if skew_s > self._config.camera_skew_s:
            oldest = min(stamps, key=lambda name: stamps[name])
            raise InputError(
                f"camera '{oldest}' lags {skew_s:.2f} s behind the others; raise camera_skew_s "
                f"({self._config.camera_skew_s} s) or mend the camera"
            )
        self._joints_near(stamp_ns)
        return stamp_ns

    def observe(self, instruction: str, now_ns: int) -> Observation:
        """The observation of now, images decoded. Raises InputError as ``newest_stamp_ns``."""
        stamp_ns = self.newest_stamp_ns(now_ns)
        images = {
            camera.name: self._decode(camera.name, self._newest[camera.name][0])
            for camera in self._spec.cameras
        }
        sample = self._joints_near(stamp_ns)
        try:
            state = self._robot.state_vector(
                self._spec.state_names, sample.position, sample.velocity, sample.effort
            )
        except RobotConfigError as error:
            raise InputError(str(error)) from None
        return Observation(images, state, instruction, stamp_ns)

    def _joints_near(self, stamp_ns: int) -> JointSample:
        sample = self._joints.nearest(stamp_ns, self._config.joint_tolerance_s)
        if sample is None:
            raise InputError(
                f"no joint state within {self._config.joint_tolerance_s} s of the images; "
                f"is '{self._robot.joint_states}' published, with stamps of the same clock?"
            )
        return sample

    def _fresh(self, camera: str, now_ns: int) -> Any:
        topic = self._robot.cameras[camera]
        if camera not in self._newest:
            raise InputError(f"camera '{camera}': no image on '{topic}' yet")
        msg, received_s = self._newest[camera]
        age_s = (now_ns - to_ns(msg.header.stamp)) * 1e-9
        silent_s = time.monotonic() - received_s
        limit_s = self._config.image_max_age_s
        if age_s > limit_s:
            raise InputError(
                f"camera '{camera}': newest image is {age_s:.2f} s old, image_max_age_s is "
                f"{limit_s}"
            )
        # A stopped simulation clock hides a dead camera; a paused simulator may be slow to draw.
        if silent_s > max(4 * limit_s, 2.0):
            raise InputError(f"camera '{camera}': no image on '{topic}' for {silent_s:.1f} s")
        return msg

    @staticmethod
    def _decode(camera: str, msg: Any) -> Any:
        try:
            if hasattr(msg, "encoding"):
                return decode_raw(msg.encoding, msg.height, msg.width, msg.step, msg.data)
            return decode_compressed(msg.data)
        except ImageError as error:
            raise InputError(f"camera '{camera}': {error}") from None
