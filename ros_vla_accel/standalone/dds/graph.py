"""What a context shows to others and knows of them: its participant and its nodes."""

from __future__ import annotations

from .participant import Participant


class Graph:
    """The participant of a context."""

    def __init__(self, domain: int) -> None:
        self.participant = Participant(domain)

    def close(self) -> None:
        self.participant.close()
