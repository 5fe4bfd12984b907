"""Key files, the commands that make them, and who gets in with which."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import zmq
import zmq.auth
from cloud_test_policy import MixingPolicy
from cloud_test_support import healthy, submit, wait_until

from ros_vla_accel import cli, doctor
from ros_vla_accel.cloud.keys import KeyFileError, KeyFolder, default_folder
from ros_vla_accel.cloud.worker import Worker
from ros_vla_accel.partition.link import LinkState


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.create_missing()
    return folder


def test_secrets_are_readable_by_their_owner_alone(keys: KeyFolder) -> None:
    for path in keys.path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert keys.path.stat().st_mode & 0o777 == 0o700
    assert keys.pair("worker").secret not in repr(keys.pair("worker"))


def test_key_files_are_those_of_zeromqs_own_tools(keys: KeyFolder) -> None:
    public, secret = zmq.auth.load_certificate(keys.path / "robot.key")
    assert (public.decode(), (secret or b"").decode()) == (
        keys.pair("robot").public,
        keys.pair("robot").secret,
    )


def test_making_what_is_missing_twice_changes_nothing(keys: KeyFolder) -> None:
    before = {path: path.read_text() for path in keys.path.rglob("*") if path.is_file()}
    keys.create_missing()
    assert before == {path: path.read_text() for path in keys.path.rglob("*") if path.is_file()}


def test_the_folder_follows_xdg(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/robots")
    assert default_folder() == Path("/etc/robots/ros_vla_accel/keys")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative, which the standard says to ignore")
    assert default_folder() == Path.home() / ".config/ros_vla_accel/keys"


def test_doctor_says_which_keys_are_there_and_what_is_wrong_with_them(
    monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "none in" in doctor._keys()[0][3]
    KeyFolder().create_missing()
    (default_folder() / "robot.key").chmod(0o644)
    found = {name: (level, text) for _, name, level, text in doctor._keys()}
    assert found["worker's key"][0] == "ok"
    assert "others can read it" in found["robot's key"][1]


def _damage(path: Path, how: str) -> None:
    if how == "open":
        path.chmod(0o644)
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "binary":
        path.write_bytes(b"\xff" * 100)
    elif how == "foreign":
        public, secret = (zmq.curve_keypair()[0].decode(), zmq.curve_keypair()[1].decode())
        path.write_text(f'curve\n  public-key = "{public}"\n  secret-key = "{secret}"\n')
    else:
        path.write_text("curve\n")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("open", "has mode 0644: others can read it; `chmod 600` it"),
        ("missing", "is missing; `ros-vla-accel keys new worker` makes one"),
        ("folder", "Is a directory"),
        ("binary", "not text"),
        ("foreign", "its public key does not belong to its secret"),
        ("empty", "holds no secret key"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_with_the_way_out(
    keys: KeyFolder, how: str, text: str
) -> None:
    _damage(keys.path / "worker.key", how)
    with pytest.raises(KeyFileError) as caught:
        keys.pair("worker")
    assert str(keys.path / "worker.key") in str(caught.value)
    assert text in str(caught.value)
    with pytest.raises(KeyFileError):
        Worker(MixingPolicy(), keys=keys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_secret_is_named(keys: KeyFolder) -> None:
    (keys.path / "robot.key").chmod(0)
    with pytest.raises(KeyFileError, match="Permission denied"):
        keys.pair("robot")


def test_a_list_that_others_can_write_lets_nobody_in(keys: KeyFolder) -> None:
    keys.allowed_path.chmod(0o777)
    with pytest.raises(KeyFileError, match="others can add keys"):
        keys.allowed()


def test_the_commands_make_allow_list_and_revoke(tmp_path: Path, capsys) -> None:
    worker, robot = str(tmp_path / "worker"), str(tmp_path / "robot")
    assert cli.main(["keys", "new", "worker", "--keys", worker]) == 0
    assert cli.main(["keys", "new", "robot", "--keys", robot]) == 0
    allow = ["keys", "allow", f"{robot}/robot.pub", "--keys", worker]
    assert cli.main([*allow, "--name", "arm7"]) == 0
    found = tmp_path / "keys.json"
    assert cli.main(["keys", "list", "--keys", worker, "--json", str(found)]) == 0
    public = KeyFolder(robot).pair("robot").public
    listed = json.loads(found.read_text())
    assert listed["allowed"] == {"arm7": public}
    assert listed["pairs"] == {"worker": KeyFolder(worker).pair("worker").public}
    assert KeyFolder(worker).pair("worker").secret not in capsys.readouterr().out
    assert cli.main(["keys", "revoke", public, "--keys", worker]) == 0
    assert KeyFolder(worker).allowed() == {}


def test_a_key_that_looks_like_an_option_is_allowed_and_revoked(tmp_path: Path) -> None:
    worker, public = str(tmp_path), "-" + "a" * 39
    assert cli.main(["keys", "allow", public, "--keys", worker, "--name", "arm7"]) == 0
    assert KeyFolder(worker).allowed() == {"arm7": public}
    assert cli.main(["keys", "revoke", public, "--keys", worker]) == 0
    assert KeyFolder(worker).allowed() == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["new", "worker"], "worker.key exists; delete it first"),
        (["allow", "nothing.pub"], "nothing.pub is missing"),
        (["allow", "x" * 39 + "~"], "is missing; give a public key or the file"),
        (["allow", "a" * 40], "that name is allowed already, with another key"),
        (["allow", "a" * 40, "--name", "../x"], "'../x' is no name of a robot"),
        (["revoke", "arm9"], "'arm9' is not on the list"),
        (["revoke", "../worker"], "'../worker' is no name of a robot"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(
    arguments: list[str], text: str, keys: KeyFolder, capsys
) -> None:
    assert cli.main(["keys", *arguments, "--keys", str(keys.path)]) == 1
    assert text in capsys.readouterr().err


def test_a_robot_whose_key_is_allowed_is_served(keys, make_worker, make_client, inbox) -> None:
    client = make_client(make_worker(keys=keys).endpoint, keys=keys)
    assert healthy(client)
    submit(client, 1)
    assert inbox.wait()[0].request_id == 1


def test_a_stranger_is_told_and_let_in_once_allowed(
    keys, tmp_path, make_worker, make_client, caplog
) -> None:
    worker = make_worker(keys=keys)
    stranger = KeyFolder(tmp_path / "stranger")
    public = stranger.create("robot").public
    (stranger.path / "worker.pub").write_text((keys.path / "worker.pub").read_text())
    (stranger.path / "worker.pub").chmod(0o600)
    client = make_client(worker.endpoint, keys=stranger)
    assert wait_until(lambda: "does not allow this robot's key" in client.stats().reason)
    assert client.health < LinkState.SUSPECT
    assert not submit(client)
    assert f"ros-vla-accel keys allow '{public}'" in caplog.text
    keys.allow("late", public)
    assert healthy(client)
    assert client.stats().reason == ""


def test_revoking_ends_a_running_connection_and_allowing_again_mends_it(
    keys, make_worker, make_client, inbox
) -> None:
    worker = make_worker(keys=keys)
    client = make_client(worker.endpoint, keys=keys)
    assert healthy(client)
    keys.revoke("robot")
    assert wait_until(lambda: client.health is LinkState.DOWN, 2.0)
    assert "revoked" in client.stats().reason or "does not allow" in client.stats().reason
    assert wait_until(lambda: "does not allow" in client.stats().reason)
    assert not submit(client)
    assert worker.stats().received == 0
    keys.allow("robot", keys.pair("robot").public)
    assert healthy(client)
    submit(client, 2)
    inbox.wait()


def test_a_worker_with_another_key_than_expected_is_not_talked_to(
    keys, tmp_path, make_worker, make_client
) -> None:
    impostor = KeyFolder(tmp_path / "impostor")
    impostor.create("worker")
    impostor.allow("robot", keys.pair("robot").public)
    client = make_client(make_worker(keys=impostor).endpoint, keys=keys)
    assert wait_until(lambda: "worker.pub is not its key" in client.stats().reason)
    assert client.stats().bytes_sent == 0


def test_keys_against_plain_text_is_said_on_both_sides(keys, make_worker, make_client) -> None:
    plain, curve = make_worker(), make_worker(keys=keys)
    insists = make_client(plain.endpoint, keys=keys)
    assert wait_until(lambda: "this robot insists on CURVE" in insists.stats().reason)
    naive = make_client(curve.endpoint)
    assert wait_until(lambda: "wants CURVE keys" in naive.stats().reason)
    assert insists.stats().bytes_sent == naive.stats().bytes_sent == 0


def test_keys_that_come_later_are_used_without_a_restart(
    keys, tmp_path, make_worker, make_client
) -> None:
    late = KeyFolder(tmp_path / "late")
    client = make_client(make_worker(keys=keys).endpoint, keys=late)
    assert wait_until(lambda: "robot.key is missing" in client.stats().reason)
    assert not submit(client)
    keys.path.rename(late.path)
    late.path.joinpath("robot.key").chmod(0o644)
    assert wait_until(lambda: "others can read it" in client.stats().reason)


def test_without_keys_a_client_talks_to_this_machine_alone(make_client) -> None:
    with pytest.raises(ValueError, match="without keys anyone between could move the arm"):
        make_client("tcp://192.168.7.7:5555")


def test_a_damaged_list_locks_everyone_out_and_says_so(
    keys, make_worker, make_client, caplog
) -> None:
    client = make_client(make_worker(keys=keys).endpoint, keys=keys)
    assert healthy(client)
    (keys.allowed_path / "robot.pub").write_text("nonsense")
    assert wait_until(lambda: client.health is LinkState.DOWN)
    assert "nobody may connect until this is mended" in caplog.text


def test_a_worker_process_takes_its_keys_and_says_which_robots_it_knows(
    keys, make_process, make_client, inbox
) -> None:
    worker = make_process("--keys", str(keys.path))
    client = make_client(worker.endpoint, keys=keys)
    assert healthy(client)
    submit(client, 5)
    assert inbox.wait()[0].request_id == 5
