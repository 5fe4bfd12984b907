"""CURVE keys of workers and robots as files (RFC 26/CurveZMQ; keys are Z85 text, RFC 32).

A folder holds what one machine needs:

| file | on | content |
|---|---|---|
| ``worker.key`` | worker | its key pair, mode 0600 |
| ``worker.pub`` | worker, robot | its public key: robots connect to this worker and no other |
| ``robot.key`` | robot | its key pair, mode 0600 |
| ``robot.pub`` | robot | its public key, for the worker's list |
| ``allowed/NAME.pub`` | worker | public keys of the robots that may connect |
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq

ROLES = ("worker", "robot")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Z85 = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"
# The layout of czmq and zmq.auth, which can read these files.
_LINE = re.compile(rf'^\s*(public|secret)-key\s*=\s*"({_Z85})"\s*$', re.MULTILINE)


class KeyFileError(RuntimeError):
    """A key that is missing, unreadable, open to others or not a key; the text says what to do."""


@dataclass(frozen=True)
class KeyPair:
    """A public key and its secret, Z85 text of 40 characters each."""

    public: str
    secret: str = field(repr=False)


def default_folder() -> Path:
    """``$XDG_CONFIG_HOME/ros_vla_accel/keys``, or under ``~/.config`` where that is not set."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    return config / "ros_vla_accel" / "keys"


def valid_public(text: str) -> bool:
    """Whether the text is a public key in Z85."""
    return re.fullmatch(_Z85, text) is not None


class KeyFolder:
    """The keys in one folder; nothing is read or written before a method is called.

    path: default ``default_folder()``. Every method raises KeyFileError.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path).expanduser() if path else default_folder()

    def __repr__(self) -> str:
        return f"KeyFolder('{self.path}')"

    @property
    def allowed_path(self) -> Path:
        return self.path / "allowed"

    def create(self, role: str) -> KeyPair:
        """Makes the pair of a ``worker`` or ``robot``; an existing one is never overwritten."""
        if role not in ROLES:
            raise KeyFileError(f"'{role}' has no keys; expected {' or '.join(ROLES)}")
        public, secret = (key.decode() for key in zmq.curve_keypair())
        path = self.path / f"{role}.key"
        text = (
            f"# Secret of this {role}: it never leaves this machine. Others get {role}.pub.\n"
            f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
        )
        with self._explained(path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(path, text)
            _replace(self.path / f"{role}.pub", _public_text(f"public key of a {role}", public))
        return KeyPair(public, secret)

    def pair(self, role: str) -> KeyPair:
        """The pair of this machine's worker or robot."""
        path = self.path / f"{role}.key"
        found = self._read(path, 0o077, f"`ros-vla-accel keys new {role}` makes one")
        public, secret = found.get("public", ""), found.get("secret", "")
        if not secret:
            raise KeyFileError(f"{path} holds no secret key; delete it and make a new one")
        if zmq.curve_public(secret.encode()).decode() != public:
            raise KeyFileError(f"{path}: its public key does not belong to its secret")
        return KeyPair(public, secret)

    def worker_public(self) -> str:
        """The only worker that this machine's robot talks to."""
        path = self.path / "worker.pub"
        return self.public_in(path, "copy it from the worker, where `keys new worker` makes it")

    def public_in(self, path: Path, hint: str = "") -> str:
        """The public key in a file."""
        public = self._read(path, 0o022, hint).get("public", "")
        if not public:
            raise KeyFileError(f"{path} holds no public key")
        return public

    def allow(self, name: str, public: str) -> None:
        """Lets a robot connect, from now on. The same key again is no error."""
        _check_name(name)
        if not valid_public(public):
            raise KeyFileError(f"'{public:.60}' is no public key: 40 characters of Z85")
        for other, key in self.allowed().items():
            if (other == name) != (key == public):
                taken = "another key" if other == name else f"the name '{other}'"
                raise KeyFileError(
                    f"that {'name' if other == name else 'key'} is allowed already, with {taken}; "
                    f"choose another --name, or first `ros-vla-accel keys revoke {other}`"
                )
        path = self.allowed_path / f"{name}.pub"
        with self._explained(path):
            self.allowed_path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, _public_text(f"public key of robot '{name}'", public))

    def revoke(self, name: str) -> None:
        """Locks a robot out, by name or public key; its connections end as well."""
        by_key = {key: other for other, key in self.allowed().items()}
        name = by_key.get(name, name)
        _check_name(name)
        path = self.allowed_path / f"{name}.pub"
        if not path.exists():
            known = ", ".join(sorted(by_key.values())) or "nobody is"
            raise KeyFileError(f"'{name}' is not on the list in {self.allowed_path}: {known}")
        with self._explained(path):
            path.unlink()

    def allowed(self) -> dict[str, str]:
        """Robot's name -> its public key."""
        if not self.allowed_path.is_dir():
            return {}
        mode = stat.S_IMODE(self.allowed_path.stat().st_mode)
        if mode & 0o022:
            raise KeyFileError(
                f"{self.allowed_path} has mode {mode:04o}: others can add keys; `chmod 700` it"
            )
        return {
            path.stem: self.public_in(path)
            for path in sorted(self.allowed_path.glob("*.pub"))
            if _NAME.fullmatch(path.stem)
        }

    def create_missing(self) -> None:
        """Worker and robot on this machine, who know each other: for demos and first tries."""
        for role in ROLES:
            if not (self.path / f"{role}.key").exists():
                self.create(role)
        robot = self.pair("robot").public
        if robot not in self.allowed().values():
            self.allow("robot", robot)

    def _read(self, path: Path, forbidden: int, hint: str) -> dict[str, str]:
        # One open file, so that what was checked is what is read.
        with self._explained(path, hint), path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
        if mode & forbidden:
            can = "read" if forbidden & 0o044 else "change"
            raise KeyFileError(f"{path} has mode {mode:04o}: others can {can} it; `chmod 600` it")
        return {kind: key for kind, key in _LINE.findall(text)}

    @staticmethod
    @contextlib.contextmanager
    def _explained(path: Path, hint: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise KeyFileError(f"{path} is missing" + (f"; {hint}" if hint else "")) from error
        except FileExistsError as error:
            raise KeyFileError(f"{path} exists; delete it first to replace it") from error
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise KeyFileError(f"{path}: {reason}") from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"'{name:.80}' is no name of a robot: letters, digits, '.', '_' and '-', at most 64"
        )


def _public_text(comment: str, public: str) -> str:
    return f'# {comment}\ncurve\n    public-key = "{public}"\n'


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _replace(path: Path, text: str) -> None:
    """At once, so that a worker never reads half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    _write_new(temporary, text)
    os.replace(temporary, path)
