"""Which processes make up the edge, the cloud and the simulator.

One description for both ways to start: ``launch/*.launch.py`` and ``ros-vla-accel launch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ros_vla_accel.resources import existing_path

DEFAULT_POLICY = "ros_vla_accel.policies:reference"

COMMON_ARGUMENTS = {
    "namespace": ("vla", "namespace of all nodes"),
    "use_sim_time": ("false", "take the time from /clock"),
    "params_file": ("edge", "parameter YAML: a path, or a name in config/"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "composed": ("true", "one process for the light nodes"),
}
NODE_ARGUMENTS = {
    "autostart": "configure and activate the nodes at start (true)",
    "robot": "robot YAML: a path, or a name in config/robots/ (metaworld_sawyer)",
    "policy": f"module:factory of the policy ({DEFAULT_POLICY})",
    "policy_args": "YAML with the factory's arguments: a path, or a name in config/policies/",
    "calibration": "YAML of `calibrate` for this policy: a path, or a name in config/calibration/",
    "cloud_endpoint": "ZeroMQ endpoint of the cloud worker (tcp://127.0.0.1:5555)",
    "cloud_keys": "folder with robot.key and worker.pub (~/.config/ros_vla_accel/keys)",
    "cloud_security": "curve, insecure: plain text to this machine, insecure-any: to any (curve)",
    "route": "edge, cloud, auto: cloud while healthy, or critical: then alone (auto)",
}
"""Passed on as parameters only when given: otherwise params_file decides, or the node's default.

A parameter file's entry for one node wins over what is passed to all nodes (that is ROS's rule),
so config/edge.yaml leaves these out.
"""
EDGE_ARGUMENTS = {
    **COMMON_ARGUMENTS,
    "view": ("false", "signals and cameras for Foxglove on ws://127.0.0.1:8765"),
    "record": ("", "folder in which the stack's topics are recorded as MCAP bags"),
    **{name: ("", text) for name, text in NODE_ARGUMENTS.items()},
}
SIM_ARGUMENTS = {
    **{name: COMMON_ARGUMENTS[name] for name in ("namespace", "log_level")},
    "params_file": ("sim", "parameter YAML: a path, or a name in config/"),
    "task": ("", "Meta-World task (drawer-open)"),
    "seed": ("", "scene of the first episode (0)"),
}
CLOUD_ARGUMENTS = {
    "policy": (DEFAULT_POLICY, "module:factory of the policy"),
    "policy_args": (
        "",
        "YAML with the factory's arguments: a path, or a name in config/policies/",
    ),
    "bind": ("tcp://127.0.0.1:5555", "ZeroMQ endpoint to listen on"),
    "threads": ("1", "CPU threads of the policy"),
    "max_batch": ("8", "most requests in one inference"),
    "backend": ("process", "process: the policy in the worker's own, or ray: replicas on Ray"),
    "replicas": ("", "policies on Ray (1)"),
    "ray_address": ("", "of a running Ray cluster, or auto (one of its own, on this machine)"),
    "metrics": ("", "[HOST:]PORT of Prometheus metrics"),
    "keys": (
        "",
        "folder of worker.key and the robots allowed (~/.config/ros_vla_accel/keys)",
    ),
    "security": ("curve", "curve, insecure: plain text on loopback, insecure-any: for anyone"),
}
ARGUMENTS = {"edge": EDGE_ARGUMENTS, "sim": SIM_ARGUMENTS, "cloud": CLOUD_ARGUMENTS}
"""Launch arguments of each: name -> (default, description)."""


@dataclass(frozen=True)
class Process:
    """One process. executable: of this package; or command: arguments of ``ros-vla-accel``.

    essential: whether the others are stopped when it ends.
    """

    name: str
    namespace: str = ""
    params_file: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    log_level: str = "info"
    command: tuple[str, ...] = ()
    essential: bool = True

    def ros_arguments(self) -> list[str]:
        """Command line after the executable, for processes that are nodes."""
        arguments = ["--ros-args", "--log-level", self.log_level]
        if self.namespace:
            arguments += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        if self.params_file:
            arguments += ["--params-file", self.params_file]
        for name, value in self.parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{name}:={text}"]
        return arguments


def complete(kind: str, given: Mapping[str, str]) -> dict[str, str]:
    """The arguments with their defaults. Raises ValueError naming an unknown one."""
    known = ARGUMENTS[kind]
    for name in given:
        if name not in known:
            raise ValueError(f"'{name}' is no argument of {kind}; known: {', '.join(known)}")
    return {name: given.get(name, default) for name, (default, _) in known.items()}


def processes(kind: str, arguments: Mapping[str, str]) -> list[Process]:
    """The processes of ``edge``, ``sim`` or ``cloud``.

    Raises ValueError for an unknown argument and FileNotFoundError for a missing YAML.
    """
    full = complete(kind, arguments)
    return {"edge": _edge, "sim": _sim, "cloud": _cloud}[kind](full)


def _true(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


_FOLDERS = {
    "robot": "config/robots",
    "policy_args": "config/policies",
    "calibration": "config/calibration",
}
"""Arguments that are YAML files -> where those that come with the package lie."""


def _edge(given: dict[str, str]) -> list[Process]:
    names = ["vla_policy"]
    names += (
        ["edge_control"]
        if _true(given["composed"])
        else ["action_executor", "partition_manager", "quantization_controller"]
    )
    parameters: dict[str, Any] = {"use_sim_time": _true(given["use_sim_time"])}
    parameters |= {name: given[name] for name in NODE_ARGUMENTS if given[name]}
    if given["autostart"]:
        parameters["autostart"] = _true(given["autostart"])
    for name, folder in _FOLDERS.items():
        if given[name]:
            parameters[name] = str(existing_path(given[name], folder).resolve())
    started = [
        Process(
            name=name,
            namespace=given["namespace"],
            params_file=str(existing_path(given["params_file"], "config")),
            parameters=parameters,
            log_level=given["log_level"],
        )
        for name in names
    ]
    if given["record"]:
        recorder = replace(
            started[0],
            name="recorder",
            parameters={**parameters, "folder": str(Path(given["record"]).expanduser().resolve())},
            essential=False,
        )
        started.append(recorder)
    return [*started, _view(given, parameters)] if _true(given["view"]) else started


def _view(given: dict[str, str], parameters: dict[str, Any]) -> Process:
    command = ["view", "--namespace", given["namespace"], "--log-level", given["log_level"]]
    command += ["--params-file", str(existing_path(given["params_file"], "config").resolve())]
    for name in ("robot", "calibration"):
        if name in parameters:
            command += [f"--{name}", parameters[name]]
    if parameters["use_sim_time"]:
        command.append("--use-sim-time")
    return Process(name="view", command=tuple(command), essential=False)


def _sim(given: dict[str, str]) -> list[Process]:
    parameters: dict[str, Any] = {"task": given["task"]} if given["task"] else {}
    if given["seed"]:
        parameters["seed"] = int(given["seed"])
    return [
        Process(
            name="sim_robot",
            namespace=given["namespace"],
            params_file=str(existing_path(given["params_file"], "config")),
            parameters=parameters,
            log_level=given["log_level"],
        )
    ]


def _cloud(given: dict[str, str]) -> list[Process]:
    command = ["cloud", "--policy", given["policy"], "--bind", given["bind"]]
    command += ["--threads", given["threads"]]
    command += ["--max-batch", given["max_batch"]]
    command += ["--backend", given["backend"]]
    for name in ("replicas", "ray_address", "metrics", "keys"):
        if given[name]:
            command += [f"--{name.replace('_', '-')}", given[name]]
    if given["security"] not in ("curve", "insecure", "insecure-any"):
        raise ValueError(
            f"security is '{given['security']}'; expected curve, insecure or insecure-any"
        )
    if given["security"] != "curve":
        command.append(f"--{given['security']}")
    if given["policy_args"]:
        path = existing_path(given["policy_args"], _FOLDERS["policy_args"])
        command += ["--policy-args", str(path.resolve())]
    return [Process(name="cloud_worker", command=tuple(command))]
