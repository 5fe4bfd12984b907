"""CycloneDDS configuration from the environment variables that ROS 2 users know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

MAX_PARTICIPANTS = 99
"""Highest participant index on one machine; CycloneDDS' default of 9 stops the tenth process."""

_SIZES = (
    # With CycloneDDS' defaults two thirds of a second 640x480 stream were lost; with these, none.
    "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize>"
)
_BUFFERS = (
    "<Internal>"
    '<SocketReceiveBufferSize min="default" max="4MB"/>'
    "<Watermarks><WhcHigh>8MB</WhcHigh></Watermarks>"
    "</Internal>"
)


def domain_id(environment: Mapping[str, str] = os.environ) -> int:
    """ROS_DOMAIN_ID, 0 if unset. Raises ValueError if it is no number in 0..232."""
    text = environment.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdigit() or int(text) > 232:
        raise ValueError(f"ROS_DOMAIN_ID is '{text}'; it must be a number in 0..232")
    return int(text)


def discovery_range(environment: Mapping[str, str] = os.environ) -> str:
    """OFF, LOCALHOST, SUBNET or SYSTEM_DEFAULT; LOCALHOST unless the user says otherwise.

    ROS_LOCALHOST_ONLY=1 wins over ROS_AUTOMATIC_DISCOVERY_RANGE, and =0 means SUBNET where the
    latter is unset, as in ROS 2. Raises ValueError for an unknown range.
    """
    only = environment.get("ROS_LOCALHOST_ONLY", "")
    if only == "1":
        return "LOCALHOST"
    chosen = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    if not chosen:
        return "SUBNET" if only == "0" else "LOCALHOST"
    if chosen not in ("OFF", "LOCALHOST", "SUBNET", "SYSTEM_DEFAULT"):
        raise ValueError(
            f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{chosen}'; "
            "it must be OFF, LOCALHOST, SUBNET or SYSTEM_DEFAULT"
        )
    return chosen


def configuration(environment: Mapping[str, str] = os.environ) -> str:
    """Configuration for ``dds_create_domain``: ours, then the user's CYCLONEDDS_URI on top."""
    reach = discovery_range(environment)
    peers = [p for p in environment.get("ROS_STATIC_PEERS", "").split(";") if p.strip()]
    users = environment.get("CYCLONEDDS_URI", "")
    general, discovery = _SIZES, ""
    if reach == "LOCALHOST":
        if not peers and not users:  # The user's interfaces would add to ours, not replace them.
            general += '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
        general += "<AllowMulticast>false</AllowMulticast>"
        peers.append("127.0.0.1")
    elif reach == "OFF":
        general += "<AllowMulticast>false</AllowMulticast>"
        discovery += f"<Tag>ros_discovery_off_{os.getpid()}</Tag>"
        peers = []
    discovery += "<ParticipantIndex>auto</ParticipantIndex>"
    discovery += f"<MaxAutoParticipantIndex>{MAX_PARTICIPANTS}</MaxAutoParticipantIndex>"
    if peers:
        listed = "".join(f"<Peer address={quoteattr(peer.strip())}/>" for peer in peers)
        discovery += f"<Peers>{listed}</Peers>"
    ours = (
        f'<CycloneDDS><Domain Id="any"><General>{general}</General>'
        f"<Discovery>{discovery}</Discovery>{_BUFFERS}</Domain></CycloneDDS>"
    )
    return f"{ours},{users}" if users else ours
