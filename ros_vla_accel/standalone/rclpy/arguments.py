"""``--ros-args``: remapping rules, parameters, parameter files, log levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .logging import LoggingSeverity, get_logging_severity_from_string


class RosArgumentError(ValueError):
    """An argument after ``--ros-args`` cannot be understood."""


@dataclass(frozen=True)
class Remap:
    """``[node:]from:=to``; kind: ``node``, ``ns`` or ``name`` (a topic or a service)."""

    kind: str
    source: str
    target: str
    node: str = ""
    scheme: str = ""


@dataclass(frozen=True)
class Override:
    """Parameter values for the nodes that ``node`` matches (a name, a path or with wildcards)."""

    node: str
    values: dict[str, Any]


@dataclass
class Arguments:
    remaps: list[Remap] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    log_levels: dict[str, LoggingSeverity] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML as rcl reads it: ``1e-3`` is a number, dates are strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":timestamp", ":float"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    __import__("re").compile(
        r"^[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.[0-9]+([eE][-+]?[0-9]+)?|\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def parameters_from_file(path: str | Path) -> list[Override]:
    """Reads a parameter file: ``node name (or path, or wildcard): ros__parameters: {...}``.

    Raises RosArgumentError if the file is missing or is no parameter file.
    """
    try:
        content = load_yaml(Path(path).read_text())
    except OSError as error:
        raise RosArgumentError(f"cannot read parameter file '{path}': {error}") from None
    except yaml.YAMLError as error:
        raise RosArgumentError(f"parameter file '{path}' is no YAML: {error}") from None
    found: list[Override] = []

    def walk(prefix: str, tree: Any) -> None:
        if not isinstance(tree, dict):
            raise RosArgumentError(f"parameter file '{path}': '{prefix}' has no 'ros__parameters'")
        for key, value in tree.items():
            if key == "ros__parameters":
                found.append(Override(prefix or "/**", flatten(value or {})))
            else:
                walk(f"{prefix}/{str(key).strip('/')}" if prefix else str(key), value)

    walk("", content or {})
    return found


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _split_rule(text: str, option: str) -> tuple[str, str]:
    left, separator, right = text.partition(":=")
    if not separator or not left:
        raise RosArgumentError(f"'{option} {text}' must have the form name:=value")
    return left, right


def parse_remap(text: str) -> Remap:
    source, target = _split_rule(text, "-r")
    if not target:
        raise RosArgumentError(f"'-r {text}' remaps to an empty name")
    scheme = ""
    for known in ("rostopic://", "rosservice://"):
        if source.startswith(known):
            scheme, source = known[:-3], source[len(known) :]
    node, separator, rest = source.partition(":")
    if separator:
        source = rest
    else:
        node = ""
    if source in ("__node", "__name"):
        return Remap("node", source, target, node)
    if source == "__ns":
        return Remap("ns", source, target, node)
    return Remap("name", source, target, node, scheme)


def parse_parameter(text: str) -> Override:
    name, value = _split_rule(text, "-p")
    node, separator, rest = name.partition(":")
    if separator:
        name = rest
    else:
        node = "/**"
    try:
        return Override(node, {name: load_yaml(value) if value else ""})
    except yaml.YAMLError as error:
        raise RosArgumentError(f"'-p {text}': {error}") from None


_WITH_VALUE = {
    "-r": "remap", "--remap": "remap", "-p": "parameter", "--param": "parameter",
    "--params-file": "file", "--log-level": "level", "-e": "enclave", "--enclave": "enclave",
    "--log-config-file": "ignored", "--log-file-name": "ignored",
}  # fmt: skip
_FLAGS = (
    "--enable-rosout-logs", "--disable-rosout-logs", "--enable-stdout-logs",
    "--disable-stdout-logs", "--enable-external-lib-logs", "--disable-external-lib-logs",
)  # fmt: skip


def parse(args: list[str]) -> Arguments:
    """Reads what stands between ``--ros-args`` and ``--``; the rest is the program's own.

    Raises RosArgumentError naming the argument.
    """
    result = Arguments()
    inside, words = False, iter(args)
    for word in words:
        if word == "--ros-args":
            inside = True
        elif word == "--":
            inside = False
        elif inside and word in _WITH_VALUE:
            value = next(words, None)
            if value is None:
                raise RosArgumentError(f"'{word}' needs a value")
            _apply(result, _WITH_VALUE[word], value)
        elif inside and word not in _FLAGS:
            if ":=" not in word:
                raise RosArgumentError(f"unknown ROS argument '{word}'")
            result.remaps.append(parse_remap(word))
    return result


def _apply(result: Arguments, what: str, value: str) -> None:
    if what == "remap":
        result.remaps.append(parse_remap(value))
    elif what == "parameter":
        result.overrides.append(parse_parameter(value))
    elif what == "file":
        result.overrides.extend(parameters_from_file(value))
    elif what == "level":
        name, separator, level = value.rpartition(":=")
        try:
            result.log_levels[name if separator else ""] = get_logging_severity_from_string(level)
        except KeyError:
            raise RosArgumentError(f"'--log-level {value}': unknown level '{level}'") from None


def without_ros_arguments(args: list[str]) -> list[str]:
    kept, inside = [], False
    for word in args:
        if word == "--ros-args":
            inside = True
        elif word == "--" and inside:
            inside = False
        elif not inside:
            kept.append(word)
    return kept
