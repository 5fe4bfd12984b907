"""Endpoints ``tcp://HOST:PORT``, and which of them stay on this machine."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-]+):(?P<port>\d{1,5}|\*)")


@dataclass(frozen=True)
class Endpoint:
    """A TCP endpoint. port is ``*`` for any free one, when binding."""

    host: str
    port: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises ValueError with the expected form."""
        match = _TCP.fullmatch(text)
        if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
            raise ValueError(f"endpoint is '{text}'; expected e.g. tcp://127.0.0.1:5555")
        return cls(match["host"], match["port"])

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        return self.host.startswith("[")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
