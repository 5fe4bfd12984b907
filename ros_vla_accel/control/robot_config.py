"""The robot YAML: which topics and joints of a robot stand for what the policy takes and gives."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ros_vla_accel.contracts import PolicySpec
from ros_vla_accel.control.limits import HOLDS, ActionLimits
from ros_vla_accel.kinematics.action_motion import AXES, ActionMotion

_FIELD_PATH = re.compile(r"^[a-z_][a-z0-9_]*(\[\d+\])?(\.[a-z_][a-z0-9_]*(\[\d+\])?)*$")
_JOINT_FIELDS = ("position", "velocity", "effort")


class RobotConfigError(ValueError):
    """The robot YAML is wrong; the text names the file, the key and the way out."""


@dataclass(frozen=True)
class StateSource:
    """Where one entry of the policy's state comes from: a joint's position, velocity or effort."""

    joint: str
    field: str = "position"


@dataclass(frozen=True)
class ActionTarget:
    """Where one column of an action goes, and what bounds it.

    command: a name under ``commands``; field: path in its message, e.g. ``twist.linear.x``.
    max_step: largest change from one control period to the next, unit of the action (m/s, rad).
    max_abs: largest magnitude, same unit. lower, upper: bounds of a position; needed where
        max_abs is not given, but taken from ``joint_limits`` for a joint.
    hold: what a hold sends: ``zero`` (the default of velocities) or ``keep`` (of all else).
    joint: of a joint_position action, the joint it moves; by default the one of its name.
    """

    command: str
    field: str
    max_step: float
    max_abs: float | None = None
    lower: float | None = None
    upper: float | None = None
    hold: str = ""
    joint: str = ""


@dataclass(frozen=True)
class CommandTopic:
    """A topic on which commands leave. type: ``package/msg/Name``."""

    topic: str
    type: str
    frame_id: str = ""


@dataclass(frozen=True)
class RobotConfig:
    """A robot, as nodes, replay and ``ros-vla-accel check`` see it. Made by :func:`load_robot`.

    joint_states: topic of sensor_msgs/JointState.
    joint_names: the joints that are read, in the order of every JointSample.
    cameras: camera name -> topic; a topic that ends in ``compressed`` carries CompressedImage.
    state: policy state name -> joint field; without an entry, the position of that joint.
    joint_limits: joint -> (lower, upper) in rad or m; a joint past them stops the arm.
    tip_frame: link of robot_description whose motion sets the precision.
    align_clock: joint_states are stamped by another clock, a constant offset away: take their
        time of arrival instead. False: such an offset counts as age, and stops the arm.
    armed: whether commands leave from the start; false on real robots.
    """

    name: str
    joint_states: str
    joint_names: tuple[str, ...]
    actions: dict[str, ActionTarget]
    commands: dict[str, CommandTopic]
    cameras: dict[str, str] = field(default_factory=dict)
    state: dict[str, StateSource] = field(default_factory=dict)
    joint_limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    action_kind: str = "cartesian_velocity"
    tip_frame: str = ""
    align_clock: bool = False
    armed: bool = False

    def state_source(self, name: str) -> StateSource:
        """Source of a policy state: the ``state`` entry, or the joint of the same name."""
        return self.state.get(name, StateSource(name))

    def state_vector(
        self,
        names: tuple[str, ...],
        position: npt.NDArray[np.floating[Any]],
        velocity: npt.NDArray[np.floating[Any]] | None,
        effort: npt.NDArray[np.floating[Any]] | None,
    ) -> npt.NDArray[np.float32]:
        """(D,) float32 in the order of ``names`` from joint arrays ordered by ``joint_names``.

        Raises RobotConfigError when the robot publishes no such field.
        """
        values = {"position": position, "velocity": velocity, "effort": effort}
        state = np.empty(len(names), np.float32)
        for index, name in enumerate(names):
            source = self.state_source(name)
            column = values[source.field]
            if column is None:
                raise RobotConfigError(
                    f"policy state '{name}' needs the {source.field} of joint '{source.joint}', "
                    f"but '{self.joint_states}' carries no {source.field}"
                )
            state[index] = column[self.joint_names.index(source.joint)]
        return state

    def action_limits(self) -> ActionLimits:
        """Limits of the executor, columns in the order of ``actions``."""
        targets = list(self.actions.values())
        bounded = any(t.lower is not None or t.upper is not None for t in targets)
        return ActionLimits(
            names=tuple(self.actions),
            max_abs=tuple(_bound(t.max_abs) for t in targets),
            max_step=tuple(float(t.max_step) for t in targets),
            hold=tuple(t.hold for t in targets),
            lower=tuple(-_bound(t.lower, -1) for t in targets) if bounded else None,
            upper=tuple(_bound(t.upper) for t in targets) if bounded else None,
            measured_joint=self._measured_joints(),
            joint_names=self.joint_names,
            joint_lower=tuple(self._joint_limit(name)[0] for name in self.joint_names),
            joint_upper=tuple(self._joint_limit(name)[1] for name in self.joint_names),
        )

    def motion_columns(self) -> dict[int, str]:
        """Column of an action -> what it moves, by the names of ``kinematics.action_motion``.

        For Cartesian kinds an axis, where the command's field ends in one (``linear.x``); for
        joint kinds the joint that the action names or is named after. Others (grippers) have no
        entry.
        """
        columns = {}
        for column, (name, target) in enumerate(self.actions.items()):
            if self.action_kind == "cartesian_velocity":
                moved = ".".join(target.field.split(".")[-2:])
                known: tuple[str, ...] = AXES
            else:
                moved, known = target.joint or name, self.joint_names
            if moved in known:
                columns[column] = moved
        return columns

    def action_motion(self, period_s: float) -> ActionMotion:
        """Actions as motion per control period. Raises ValueError if none moves the arm."""
        return ActionMotion(self.action_kind, self.motion_columns(), period_s, self.joint_names)

    def _measured_joints(self) -> tuple[int, ...] | None:
        if self.action_kind != "joint_position":
            return None
        index = {name: at for at, name in enumerate(self.joint_names)}
        return tuple(index.get(target.joint, -1) for target in self.actions.values())

    def _joint_limit(self, joint: str) -> tuple[float, float]:
        return self.joint_limits.get(joint, (-math.inf, math.inf))

    def check(self, spec: PolicySpec) -> None:
        """Raises RobotConfigError when this robot cannot feed or obey the policy ``spec``."""
        missing = [camera.name for camera in spec.cameras if camera.name not in self.cameras]
        if missing:
            raise RobotConfigError(
                f"robot '{self.name}' maps no topic to camera {missing} of policy '{spec.name}'; "
                f"add it under 'cameras' (it has {sorted(self.cameras)})"
            )
        for name in spec.state_names:
            joint = self.state_source(name).joint
            if joint not in self.joint_names:
                raise RobotConfigError(
                    f"policy state '{name}' has no joint in robot '{self.name}'; add "
                    f"'{name}: {{joint: ..., field: position}}' under 'state' "
                    f"(joints: {list(self.joint_names)})"
                )
        if tuple(self.actions) != spec.action_names:
            raise RobotConfigError(
                f"policy '{spec.name}' gives actions {list(spec.action_names)}, robot "
                f"'{self.name}' lists {list(self.actions)}; name the same ones, in this order, "
                "under 'actions'"
            )
        if spec.action_kind != self.action_kind:
            raise RobotConfigError(
                f"policy '{spec.name}' gives '{spec.action_kind}' actions, robot '{self.name}' "
                f"takes '{self.action_kind}'"
            )


def _bound(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None else sign * float(value)


def load_robot(path: str | Path) -> RobotConfig:
    """Reads and validates a robot YAML. Raises RobotConfigError naming the file and the key."""
    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RobotConfigError(f"robot YAML {path}: {error}") from None
    try:
        return _robot(document)
    except RobotConfigError as error:
        raise RobotConfigError(f"robot YAML {path}: {error}") from None


def _robot(document: Any) -> RobotConfig:
    known = _checked(document, RobotConfig, "top level")
    for key in ("joint_names", "actions", "commands"):
        if not known[key]:
            raise RobotConfigError(f"'{key}' is empty")
    names = tuple(str(name) for name in known["joint_names"])
    if len(set(names)) != len(names):
        raise RobotConfigError(f"'joint_names' repeats a joint: {list(names)}")
    commands = {
        name: CommandTopic(**_checked(entry, CommandTopic, f"commands.{name}"))
        for name, entry in known["commands"].items()
    }
    limits = {
        joint: _interval(joint, bounds, names)
        for joint, bounds in (known.get("joint_limits") or {}).items()
    }
    kind = str(known.get("action_kind", RobotConfig.action_kind))
    known.update(
        joint_names=names,
        commands=commands,
        cameras=dict(known.get("cameras") or {}),
        actions={
            name: _limited(name, _action(name, entry, commands), kind, names, limits)
            for name, entry in known["actions"].items()
        },
        state={
            name: _state_source(name, entry, names)
            for name, entry in (known.get("state") or {}).items()
        },
        joint_limits=limits,
    )
    return RobotConfig(**known)


def _checked(entry: Any, cls: type, where: str) -> dict[str, Any]:
    """The entry as keyword arguments of a dataclass, after a look for unknown and missing keys."""
    if not isinstance(entry, dict):
        raise RobotConfigError(f"{where}: expected a mapping, got {entry!r}")
    known = [item.name for item in fields(cls)]
    unknown = sorted(set(map(str, entry)) - set(known))
    if unknown:
        raise RobotConfigError(f"{where}: unknown key {unknown}; known are {known}")
    missing = [
        item.name
        for item in fields(cls)
        if item.default is MISSING and item.default_factory is MISSING and item.name not in entry
    ]
    if missing:
        raise RobotConfigError(f"{where}: {missing} is missing")
    return dict(entry)


def _action(name: str, entry: Any, commands: dict[str, CommandTopic]) -> ActionTarget:
    where = f"actions.{name}"
    action = ActionTarget(**_checked(entry, ActionTarget, where))
    if action.command not in commands:
        raise RobotConfigError(f"{where}.command: {action.command!r} not in {sorted(commands)}")
    if not _FIELD_PATH.match(str(action.field)):
        raise RobotConfigError(f"{where}.field: {action.field!r} is no path like 'data[0]'")
    for key in ("max_step", "max_abs", "lower", "upper"):
        value = getattr(action, key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise RobotConfigError(f"{where}.{key}: {value!r} is no number")
        if key.startswith("max") and not value > 0:
            raise RobotConfigError(f"{where}.{key}: {value!r} must be positive")
    return action


def _limited(
    name: str,
    action: ActionTarget,
    kind: str,
    joints: tuple[str, ...],
    limits: dict[str, tuple[float, float]],
) -> ActionTarget:
    """The action with the hold, the joint and the bounds that its kind asks for."""
    where = f"actions.{name}"
    velocity = kind.endswith("velocity")
    hold = action.hold or ("zero" if velocity else "keep")
    if hold not in HOLDS:
        raise RobotConfigError(f"{where}.hold: {hold!r} is not one of {HOLDS}")
    if hold == "zero" and not velocity:
        raise RobotConfigError(f"{where}.hold: 'zero' would drive a position to 0; use 'keep'")
    joint, lower, upper = action.joint, action.lower, action.upper
    if kind == "joint_position":
        joint = joint or (name if name in joints else "")
        if joint and joint not in joints:
            raise RobotConfigError(f"{where}.joint: {joint!r} is not one of {list(joints)}")
        least, most = limits.get(joint, (None, None))
        lower = least if lower is None else lower
        upper = most if upper is None else upper
    if action.max_abs is None and (lower is None or upper is None):
        raise RobotConfigError(
            f"{where}: no bound; give max_abs, or lower and upper (for a joint, joint_limits; an "
            "action that is no joint's name needs `joint: NAME`)"
        )
    return replace(action, hold=hold, joint=joint, lower=lower, upper=upper)


def _state_source(name: str, entry: Any, joints: tuple[str, ...]) -> StateSource:
    source = StateSource(**_checked(entry, StateSource, f"state.{name}"))
    if source.joint not in joints or source.field not in _JOINT_FIELDS:
        raise RobotConfigError(
            f"state.{name}: {source.joint!r}.{source.field!r} is not one of {_JOINT_FIELDS} "
            f"of {list(joints)}"
        )
    return source


def _interval(joint: str, bounds: Any, joints: tuple[str, ...]) -> tuple[float, float]:
    if joint not in joints:
        raise RobotConfigError(f"joint_limits.{joint}: not one of {list(joints)}")
    if not (isinstance(bounds, list) and len(bounds) == 2 and bounds[0] < bounds[1]):
        raise RobotConfigError(f"joint_limits.{joint}: {bounds!r} is not [lower, upper]")
    return float(bounds[0]), float(bounds[1])
