"""Names: validation, expansion to full paths, remapping, matching of parameter sections."""

from __future__ import annotations

import re

from .arguments import Override, Remap
from .exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _first_bad(name: str, allowed: str) -> int:
    for index, character in enumerate(name):
        if not (character.isascii() and (character.isalnum() or character in allowed)):
            return index
    return -1


def validate_node_name(name: str) -> bool:
    """Raises InvalidNodeNameException."""
    if not name:
        raise InvalidNodeNameException(name, "node name must not be empty", 0)
    bad = _first_bad(name, "_")
    if bad >= 0:
        text = "node name must not contain characters other than alphanumerics or '_'"
        raise InvalidNodeNameException(name, text, bad)
    if name[0].isdigit():
        raise InvalidNodeNameException(name, "node name must not start with a number", 0)
    return True


def validate_namespace(namespace: str) -> bool:
    """Raises InvalidNamespaceException."""
    if not namespace.startswith("/"):
        text = "namespace must be absolute, it must lead with a '/'"
        raise InvalidNamespaceException(namespace, text, 0)
    bad = _first_bad(namespace, "_/")
    if bad >= 0:
        text = "namespace must not contain characters other than alphanumerics, '_', or '/'"
        raise InvalidNamespaceException(namespace, text, bad)
    if len(namespace) > 1 and namespace.endswith("/"):
        text = "namespace must not end with a '/', unless only a '/'"
        raise InvalidNamespaceException(namespace, text, len(namespace) - 1)
    if "//" in namespace:
        text = "namespace must not contain repeated '/'"
        raise InvalidNamespaceException(namespace, text, namespace.index("//") + 1)
    for token in re.finditer(r"/([0-9])", namespace):
        text = "namespace must not have a token that starts with a number"
        raise InvalidNamespaceException(namespace, text, token.start(1))
    return True


def expand(name: str, node: str, namespace: str, *, service: bool = False) -> str:
    """The full name of a topic or service of a node; ``~`` is the node's own path.

    Raises InvalidTopicNameException or InvalidServiceNameException.
    """
    error = InvalidServiceNameException if service else InvalidTopicNameException
    kind = "service" if service else "topic"
    own = f"{namespace.rstrip('/')}/{node}"
    full = (
        name.replace("{node}", node).replace("{ns}", namespace).replace("{namespace}", namespace)
    )
    if full.startswith("~"):
        if len(full) > 1 and full[1] != "/":
            raise error(name, f"{kind} name has a '~' that is not followed by a '/'", 1)
        full = own + full[1:]
    elif not full.startswith("/"):
        full = f"{namespace.rstrip('/')}/{full}"
    if not name:
        raise error(name, f"{kind} name must not be empty string", 0)
    bad = _first_bad(full, "_/")
    if bad >= 0:
        where = max(0, len(name) - (len(full) - bad))
        text = (
            f"{kind} name must not contain characters other than alphanumerics, '_', '~', or '/'"
        )
        raise error(name, text, where)
    if full.endswith("/"):
        raise error(name, f"{kind} name must not end with a forward slash", len(name) - 1)
    if "//" in full:
        raise error(name, f"{kind} name must not contain repeated '/'", 0)
    for token in full[1:].split("/"):
        if not _TOKEN.fullmatch(token):
            text = f"{kind} name token must not start with a number"
            raise error(name, text, max(0, name.find(token)))
    return full


def remap_node(name: str, namespace: str, rules: list[Remap]) -> tuple[str, str]:
    """Name and namespace of a node after ``__node`` and ``__ns`` rules; the first match wins."""
    original = name
    for rule in rules:
        if rule.kind == "node" and rule.node in ("", original):
            name = rule.target
            break
    for rule in rules:
        if rule.kind == "ns" and rule.node in ("", original):
            namespace = rule.target if rule.target.startswith("/") else f"/{rule.target}"
            break
    return name, namespace


def remap_name(
    full: str, node: str, namespace: str, rules: list[Remap], *, service: bool = False
) -> str:
    """A full name after the node's remapping rules; the first match wins."""
    scheme = "rosservice" if service else "rostopic"
    for rule in rules:
        if rule.kind != "name" or rule.node not in ("", node):
            continue
        if rule.scheme not in ("", scheme):
            continue
        if expand(rule.source, node, namespace, service=service) == full:
            return expand(rule.target, node, namespace, service=service)
    return full


def section_matches(section: str, full_node: str) -> bool:
    """Whether a section of a parameter file (``/**``, ``/ns/node``, ``node``) is for a node."""
    if "*" not in section:
        return f"/{section.lstrip('/')}" == full_node
    pattern = ""
    for part in re.split(r"(/?\*\*|\*)", "/" + section.lstrip("/")):
        if part in ("/**", "**"):
            pattern += "(/.*)?" if part == "/**" else ".*"
        elif part == "*":
            pattern += "[^/]*"
        else:
            pattern += re.escape(part)
    return re.fullmatch(pattern, full_node) is not None


def overrides_for(full_node: str, overrides: list[Override]) -> dict[str, object]:
    """Parameter values for a node; later ones win."""
    values: dict[str, object] = {}
    for override in overrides:
        if section_matches(override.node, full_node):
            values.update(override.values)
    return values
