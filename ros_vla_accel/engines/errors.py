"""What can go wrong with an engine, without torch or any engine installed."""

from __future__ import annotations


class EngineError(ValueError):
    """An engine that cannot be made, loaded or run here; the text says why and what to do."""
