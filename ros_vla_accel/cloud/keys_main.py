"""``ros-vla-accel keys``: who may connect to whom, by CURVE key pairs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ros_vla_accel.cloud.keys import ROLES, KeyFileError, KeyFolder, valid_public


def main(argv: list[str]) -> int:
    """Exit status 1 when a key is missing, unreadable, open to others or there already."""
    options = _parser().parse_args(_keys_last(argv))
    keys = KeyFolder(options.keys)
    try:
        {"new": _new, "allow": _allow, "revoke": _revoke, "list": _list}[options.action](
            keys, options
        )
    except KeyFileError as error:
        print(f"ros-vla-accel keys: {error}", file=sys.stderr)
        return 1
    return 0


def _keys_last(argv: list[str]) -> list[str]:
    """One public key in 85 begins with "-", and argparse would take it for an option: such keys go
    behind "--"."""
    dashed = [a for a in argv if a.startswith("-") and valid_public(a)]
    return [a for a in argv if a not in dashed] + (["--", *dashed] if dashed else [])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ros-vla-accel keys",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "on the worker:  ros-vla-accel keys new worker      (robots get its worker.pub)\n"
            "on each robot:  ros-vla-accel keys new robot       (the worker gets its robot.pub)\n"
            "on the worker:  ros-vla-accel keys allow robot.pub --name arm7\n"
        ),
    )
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--keys",
        metavar="DIR",
        help="folder of the keys (default: ros_vla_accel/keys in $XDG_CONFIG_HOME or ~/.config)",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", parents=[folder], help="make a key pair")
    new.add_argument("role", choices=ROLES)
    allow = actions.add_parser("allow", parents=[folder], help="let a robot connect")
    allow.add_argument("key", metavar="KEY", help="public key, or a file that holds it")
    allow.add_argument("--name", default="robot", help="of the robot (default: robot)")
    revoke = actions.add_parser(
        "revoke", parents=[folder], help="lock a robot out, connected or not"
    )
    revoke.add_argument("name", metavar="NAME", help="of the robot, or its public key")
    listing = actions.add_parser("list", parents=[folder], help="what is there")
    listing.add_argument("--json", metavar="PATH", help="write it here as well")
    return parser


def _new(keys: KeyFolder, options: argparse.Namespace) -> None:
    pair = keys.create(options.role)
    print(f"{keys.path / options.role}.key made; its public key is {pair.public}")
    if options.role == "worker":
        print("copy worker.pub into the key folder of each robot")
    else:
        print("copy robot.pub to the worker's machine, and `ros-vla-accel keys allow` it there")


def _allow(keys: KeyFolder, options: argparse.Namespace) -> None:
    public = options.key
    if not valid_public(public):
        public = keys.public_in(Path(public), "give a public key or the file that holds it")
    keys.allow(options.name, public)
    print(f"'{options.name}' may connect")


def _revoke(keys: KeyFolder, options: argparse.Namespace) -> None:
    keys.revoke(options.name)
    print(f"'{options.name}' is locked out")


def _list(keys: KeyFolder, options: argparse.Namespace) -> None:
    pairs = {r: keys.pair(r).public for r in ROLES if (keys.path / f"{r}.key").exists()}
    allowed = keys.allowed()
    print(f"{keys.path}")
    for role in ROLES:
        print(f"  {role:<8}{pairs.get(role, f'none; `keys new {role}` makes one')}")
    for name, public in allowed.items():
        print(f"  allowed {public} {name}")
    if options.json:
        content = {"folder": str(keys.path), "pairs": pairs, "allowed": allowed}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n")
