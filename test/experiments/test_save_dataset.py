"""`train --save-dataset` exports what a run recorded, with or without training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ros_vla_accel import cli
from ros_vla_accel.experiments import train
from ros_vla_accel.experiments.collect import Episode

pytest.importorskip(
    "pyarrow", reason="pyarrow is not installed: pip install 'ros_vla_accel[train]'"
)

MakeEpisode = Callable[..., Episode]


def frames(dataset: Path) -> int:
    return int(json.loads((dataset / "meta/info.json").read_text())["total_frames"])


def test_the_command_exports_without_training(episode: MakeEpisode, tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    episode(steps=5).save(tmp_path / "episodes/a.npz")
    words = ["--run", str(tmp_path), "--no-train", "--save-dataset", str(tmp_path / "set")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", lambda *_: pytest.fail("it trained"))
        assert train.main(words) == 0
    assert frames(tmp_path / "set") == 5


def test_the_command_exports_what_a_training_recorded(
    tmp_path: Path, episode: MakeEpisode
) -> None:
    def trained(config: object, folder: Path, export: Path | None) -> Path:
        (folder / "episodes").mkdir(parents=True)
        episode(steps=5).save(folder / "episodes/a.npz")
        return folder / "checkpoint"

    run, dataset = tmp_path / "run", tmp_path / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", trained)
        patch.setattr(train, "finish", lambda *_: None)
        assert train.main(["--run", str(run), "--save-dataset", str(dataset)]) == 0
    assert frames(dataset) == 5


def test_the_command_refuses_an_existing_folder_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", lambda *_: pytest.fail("it trained"))
        assert train.main(["--run", str(tmp_path / "run"), "--save-dataset", str(tmp_path)]) == 1
    assert "exists; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--save-dataset", "set", "--steps", "6"]])
def test_no_train_with_nothing_to_export_or_with_settings_is_a_usage_error(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["--run", str(tmp_path), "--no-train", *more])
    assert "--no-train goes with --save-dataset" in capsys.readouterr().err


def test_a_missing_pyarrow_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ros_vla_accel.experiments.lerobot_dataset", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ["train", "--run", str(tmp_path), "--save-dataset", str(tmp_path / "set")]
    assert cli.main(words) == 1
    assert "pip install 'ros_vla_accel[train]'" in capsys.readouterr().err
