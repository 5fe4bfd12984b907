"""Who may connect: the worker's answer to ZeroMQ's authentication requests (RFC 27/ZAP)."""

from __future__ import annotations

import logging
import time

import zmq
from zmq.utils import z85

from ros_vla_accel.cloud.keys import KeyFileError, KeyFolder

logger = logging.getLogger(__name__)

DOMAIN = b"ros_vla_accel"
_ENDPOINT = "inproc://zeromq.zap.01"  # fixed by the RFC
_LOG_EVERY_S = 1.0


class AllowList:
    """The public keys that may connect; a change of their files counts within refresh_s.

    A list that cannot be read lets nobody in.
    """

    def __init__(self, keys: KeyFolder, refresh_s: float = 0.2):
        self._keys = keys
        self._refresh_s = refresh_s
        self._read_s = -refresh_s
        self._files: tuple[tuple[str, int, int], ...] | None = None
        self._names: dict[str, str] = {}

    def name_of(self, public: str, now_s: float) -> str | None:
        """The robot's name, or None: a stranger. now_s: steady clock."""
        if now_s - self._read_s >= self._refresh_s:
            self._read_s = now_s
            self._refresh()
        return self._names.get(public)

    def __len__(self) -> int:
        return len(self._names)

    def _refresh(self) -> None:
        try:
            found = sorted(self._keys.allowed_path.glob("*.pub"))
            stats = [path.stat() for path in found]
        except OSError:  # deleted meanwhile; the next refresh sees a consistent list
            self._files, self._names = None, {}
            return
        files = tuple((p.name, s.st_mtime_ns, s.st_ino) for p, s in zip(found, stats, strict=True))
        if files == self._files:
            return
        self._files = files
        try:
            self._names = {key: name for name, key in self._keys.allowed().items()}
        except KeyFileError as error:
            self._names = {}
            logger.error("nobody may connect until this is mended: %s", error)
        else:
            logger.info("robots allowed: %s", ", ".join(sorted(self._names.values())) or "none")


class Gatekeeper:
    """Answers handshakes from an allow-list. Belongs to the thread that polls ``socket``."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: AllowList):
        self._allowed = allowed
        self._logged_s = -_LOG_EVERY_S
        self.refused = 0
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)

    def answer(self) -> None:
        """One request of a handshake, which waits for it."""
        frames = self.socket.recv_multipart()
        version, request_id = frames[0], frames[1]
        address, mechanism, credentials = frames[3], frames[5], frames[6:]
        public = ""
        if mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
            public = z85.encode(credentials[0]).decode()
        now_s = time.monotonic()
        if public and self._allowed.name_of(public, now_s) is not None:
            status = [b"200", b"OK", public.encode()]
        else:
            status = [b"400", b"key not allowed", b""]
            self.refused += 1
            self._log(public, address.decode(errors="replace"), now_s)
        self.socket.send_multipart([version, request_id, *status, b""])

    def _log(self, public: str, address: str, now_s: float) -> None:
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            logger.warning(
                "handshake %d refused: '%s' from %s is on no list; "
                "`ros-vla-accel keys allow '%s'` lets it in",
                *(self.refused, public, address, public),
            )
