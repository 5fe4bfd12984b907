from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros_vla_accel.contracts import ActionChunk, InferenceRequest
from ros_vla_accel.experiments import train
from ros_vla_accel.experiments.collect import record
from ros_vla_accel.experiments.train import main
from ros_vla_accel.experiments.train_config import QUICK, SHARES, TrainConfig, round_seeds
from ros_vla_accel.policies import reference
from ros_vla_accel.policies.checkpoint import load_checkpoint
from ros_vla_accel.sim.env import SawyerEnv


def steps_logged(folder: Path) -> list[int]:
    with (folder / "log.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_a_quick_run_trains_exports_and_resumes(objective: str, tmp_path: Path) -> None:
    run, export = tmp_path / "run", tmp_path / "export"
    quick = ["--run", str(run), "--quick", "--objective", objective]
    assert main([*quick, "--steps", "4", "--evaluate", "0"]) == 0
    assert not (run / "evaluation.md").exists()
    assert steps_logged(run) == [1, 2, 3, 4]
    with (run / "log.csv").open("a") as file:
        file.write("5,0,0,0,0\n")  # as if it had been killed after a step that was not saved
    more = ["--run", str(run), "--steps", "6", "--export", str(export), "--evaluate", "1"]
    assert main(more) == 0
    assert steps_logged(run) == [1, 2, 3, 4, 5, 6]
    assert cv2.imread(str(run / "evaluation-curves.png")).shape[0] > 400
    rows = json.loads((run / "evaluation-late.json").read_text())["rows"]
    assert [row["task"] for row in rows] == ["drawer-open"]
    assert "| drawer-open |" in (run / "evaluation.md").read_text()
    model, manifest = load_checkpoint(export)
    assert model.config.objective == objective
    assert manifest.training["step"] == 6
    assert "train" in manifest.training["command"]


def test_what_a_policy_did_is_labelled_with_what_the_expert_would_do() -> None:
    class Up:
        """Moves up without end; the expert, who drives in turn, has to come down again."""

        spec = reference().spec

        def infer(self, requests: list[InferenceRequest]) -> list[ActionChunk]:
            rows = np.tile(np.float32([0, 0, 0.2, -1]), (16, 1))
            return [
                ActionChunk(rows, 0.05, r.observation.stamp_ns, r.request_id, r.episode_id, "edge")
                for r in requests
            ]

        def reset(self, episode_id: int) -> None:
            pass

    env = SawyerEnv("pick-place")
    episode, _ = record(env, 100_001, Up())
    env.close()
    assert not episode.expert_driven.all()
    assert (episode.plan[~episode.expert_driven, 0, 2] < 0).any()


def test_an_experts_episode_ends_in_success_and_is_labelled_throughout() -> None:
    env = SawyerEnv("button-press-topdown")
    episode, success = record(env, seed=100_001)
    env.close()
    assert success
    steps = len(episode.state)
    assert episode.plan.shape == (steps, 16, 4)
    assert episode.images.shape == (steps, 2, 64, 64, 3)
    assert np.abs(episode.plan[:, :, :3]).max() <= 0.2 + 1e-6
    assert episode.privileged.shape == (steps, 15)


def test_rounds_never_share_seeds_with_each_other_or_with_evaluation() -> None:
    config = TrainConfig()
    rounds = [set(next(iter(round_seeds(config, n).values()))) for n in range(config.rounds + 1)]
    assert len(set.union(*rounds)) == sum(map(len, rounds))
    assert min(map(min, rounds)) >= 100_000


def test_the_command_says_what_differs_from_the_defaults() -> None:
    config = TrainConfig(steps=10, weights={"door-open": 1.5}, tasks=("door-open-v3",))
    assert config.command() == (
        "ros-vla-accel train --run RUN --tasks door-open-v3 --steps 10 --weights door-open=1.5"
    )


def test_naming_one_share_leaves_the_others_as_they_are() -> None:
    shares = TrainConfig(weights={"pick-place": 3.0}).shares
    assert shares == {**SHARES, "pick-place": 3.0}


def test_the_default_command_has_no_settings() -> None:
    assert TrainConfig().command() == "ros-vla-accel train --run RUN"


def test_the_command_alone_makes_the_same_settings(tmp_path: Path) -> None:
    config = replace(QUICK, weights={"drawer-open": 1 / 3}, learning_rate=1.2345678e-4, ema=0.99)
    words = config.command().removeprefix("ros-vla-accel train ").replace("RUN", str(tmp_path))
    asked: list[TrainConfig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", lambda config, folder, export: asked.append(config))
        patch.setattr(train, "finish", lambda *given: None)
        assert main(words.split()) == 0
    assert asked == [config]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"steps": 3}, "steps 3 must be more than rounds 3"),
        ({"episodes": 1001}, "episodes 1001 must be at most 1000"),
        ({"dagger_episodes": 1001}, "dagger_episodes 1001 must be at most 1000"),
        ({"weights": {"juggle": 1.0}}, r"weights name \['juggle'\], which is not trained"),
        ({"weights": {"door-open": -1.0}}, "must be shares of 0 or more"),
        ({"size": {"depth": 3}}, r"unknown names \['depth'\]"),
        ({"tasks": ()}, "at least one"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_file_of_settings_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"tasks": [], "stepps": 3}))
    with pytest.raises(ValueError, match=r"unknown keys \['stepps'\]"):
        TrainConfig.load(path)


def test_shares_that_cannot_be_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--run", str(tmp_path / "run"), "--weights", "door-open=1,drawer-open"])
    assert "'drawer-open' must read task=share" in capsys.readouterr().err


def test_a_page_without_a_place_for_the_table_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--run", str(tmp_path / "run"), "--page", str(page)])
    assert "has no place for the evaluation" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_ends_with_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--run", str(tmp_path / "run"), "--tasks", "juggle"])
    assert not (tmp_path / "run").exists()
