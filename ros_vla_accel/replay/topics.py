"""Which recorded topic stands for which of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

JOINT_STATE = "sensor_msgs/msg/JointState"
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STRING = "std_msgs/msg/String"


class TopicError(ValueError):
    """A topic cannot be found, or more than one fits; the text lists what the bag has."""


def parse_remaps(rules: Sequence[str]) -> dict[str, str]:
    """``["joint_states:=/arm/joint_states"]`` as a mapping. Raises TopicError."""
    remaps = {}
    for rule in rules:
        ours, separator, recorded = rule.partition(":=")
        if not (separator and ours and recorded):
            raise TopicError(f"'{rule}' must read our_topic:=/recorded/topic")
        remaps[ours.strip("/")] = recorded
    return remaps


def find(
    topics: Mapping[str, str], name: str, remaps: Mapping[str, str], kinds: Sequence[str] = ()
) -> str | None:
    """The recorded topic for ours, e.g. ``joint_states`` or ``camera/corner2/image_raw``.

    A remap says which; otherwise it is the one topic of that name in any namespace, with a type
    among ``kinds`` if there are any. None if there is none; TopicError for a remap to nothing,
    or for several that fit.
    """
    wanted = name.strip("/")
    if wanted in remaps:
        recorded = remaps[wanted]
        for topic in (recorded, f"/{recorded}"):
            if topic in topics:
                return topic
        raise TopicError(f"the bag has no topic '{recorded}'; it has {_listed(topics)}")
    fitting = [
        topic
        for topic, kind in topics.items()
        if (topic.strip("/") == wanted or topic.endswith(f"/{wanted}"))
        and (not kinds or kind in kinds)
    ]
    if len(fitting) > 1:
        raise TopicError(
            f"{' and '.join(sorted(fitting))} could be '{wanted}'; choose one with "
            f"--topics {wanted}:={fitting[0]}"
        )
    return fitting[0] if fitting else None


def find_joint_states(
    topics: Mapping[str, str], name: str, remaps: Mapping[str, str], mapped: bool
) -> str:
    """The topic of the joint states: by name, or else the only one of that type.

    mapped: a field mapping is given, so that any type may be it. Raises TopicError.
    """
    found = find(topics, name, remaps, () if mapped else (JOINT_STATE,))
    if found is not None:
        return found
    fitting = [topic for topic, kind in topics.items() if kind == JOINT_STATE]
    if len(fitting) == 1:
        return fitting[0]
    raise TopicError(
        f"the bag has {'several topics' if fitting else 'no topic'} of {JOINT_STATE}; name one "
        f"with --topics {name.strip('/')}:=/its/topic (and --fields for another type); it has "
        f"{_listed(topics)}"
    )


def _listed(topics: Mapping[str, str]) -> str:
    return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "none"
