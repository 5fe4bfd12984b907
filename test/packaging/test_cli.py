"""The command line explains itself, and its exit status means something."""

import json

import pytest

from ros_vla_accel import cli, doctor, middleware


def test_help_lists_every_command_and_no_command_is_an_error(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_an_unknown_command_is_named(capsys):
    assert cli.main(["dmeo"]) == 2
    assert "'dmeo' is no command" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_its_own_help(name, capsys):
    try:
        status = cli.main([name, "--help"])
    except SystemExit as ended:
        status = ended.code
    assert status == 0
    assert f"ros-vla-accel {name}" in capsys.readouterr().out


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    def absent(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr(cli.importlib, "import_module", absent)
    assert cli.main(["eval"]) == 1
    assert "pip install 'ros_vla_accel[policy]'" in capsys.readouterr().err


def test_doctor_reports_what_is_active_and_writes_it_as_json(tmp_path, capsys):
    path = tmp_path / "doctor.json"
    assert doctor.main(["--json", str(path)]) == 0
    findings = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    assert middleware.selected() in findings["active"]["text"]
    assert findings["numpy"]["level"] == "ok"
    assert "numpy" in capsys.readouterr().out


def test_check_shows_how_the_shipped_robot_feeds_the_shipped_policy(capsys):
    assert cli.main(["check"]) == 0
    assert "camera/corner2/image_raw" in capsys.readouterr().out


def test_check_names_a_robot_that_does_not_exist(capsys):
    assert cli.main(["check", "--robot", "nobody"]) == 1
    assert "metaworld_sawyer" in capsys.readouterr().out
