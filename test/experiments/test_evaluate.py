from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ros_vla_accel.contracts import ActionChunk, CameraSpec, InferenceRequest, PolicySpec
from ros_vla_accel.experiments.closed_loop import Condition
from ros_vla_accel.experiments.evaluate import PolicyChoice, evaluate, main
from ros_vla_accel.policies import reference
from ros_vla_accel.policies.random_policy import SHIPPED
from ros_vla_accel.sim.env import ARM_JOINTS

SPEC = PolicySpec(
    name="still",
    cameras=(CameraSpec("corner2", 32, 32),),
    state_names=tuple(reversed(ARM_JOINTS)),
    action_names=("vx", "vy", "vz", "gripper"),
    horizon=16,
    period_s=0.05,
    action_kind="cartesian_velocity",
)


class Still:
    """Never moves, and keeps what it was shown."""

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.asked: list[InferenceRequest] = []

    def infer(self, requests: list[InferenceRequest]) -> list[ActionChunk]:
        self.asked += requests
        zeros = np.zeros((16, 4), np.float32)
        return [
            ActionChunk(zeros, 0.05, r.observation.stamp_ns, r.request_id, r.episode_id, "edge")
            for r in requests
        ]

    def reset(self, episode_id: int) -> None:
        pass


def test_a_policy_that_never_moves_fails_where_the_expert_succeeds() -> None:
    policy = Still()
    (result,) = evaluate(policy, ["drawer-open-v3"], episodes=1)
    row = result.row()
    assert (row["successes"], row["expert_rate"], row["steps_mean"]) == (0, 1.0, 200)
    assert row["success_low"] == 0.0
    seen = policy.asked[0].observation
    assert seen.images["corner2"].shape == (32, 32, 3)
    assert seen.state.shape == (7,)
    assert seen.instruction == "open the drawer"


def test_a_policy_for_joints_that_the_simulator_lacks_is_refused() -> None:
    policy = Still(replace(SPEC, state_names=("elbow",)))
    with pytest.raises(ValueError, match="no joint elbow"):
        evaluate(policy, ["drawer-open-v3"], episodes=1)


def test_a_policy_of_another_action_kind_is_refused() -> None:
    policy = Still(replace(SPEC, action_kind="joint_position"))
    with pytest.raises(ValueError, match="'joint_position'"):
        evaluate(policy, ["drawer-open-v3"], episodes=1)


def test_the_shipped_policy_opens_a_drawer(tmp_path: Path) -> None:
    path, arguments = tmp_path / "eval.json", tmp_path / "args.yaml"
    arguments.write_text("steps: 5\ncheckpoint: nowhere\n")
    given = ["--policy-args", str(arguments), "--checkpoint", str(SHIPPED), "--json", str(path)]
    assert main(["--tasks", "drawer-open", "--episodes", "1", *given]) == 0
    content = json.loads(path.read_text())
    (row,) = content["rows"]
    assert row["task"] == "drawer-open"
    assert row["successes"] == row["episodes"] == 1
    assert row["expert_rate"] == 1.0
    assert 0 < row["inference_ms_p50"] <= row["inference_ms_p95"]
    config = content["config"]
    assert config["checkpoint_hash"] == reference().spec.checkpoint_hash
    assert config["policy_args"] == {"steps": 5, "checkpoint": str(SHIPPED)}
    assert (config["tasks"], config["steps"]) == (["drawer-open"], 5)


def test_a_result_that_cannot_be_written_is_refused_before_the_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ros_vla_accel.experiments.evaluate.evaluate", None)
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "eval.json"):
        assert main(["--json", str(path)]) == 1
        assert f"--json {path}" in capsys.readouterr().err
    assert main(["--policy", "nowhere:make", "--json", str(tmp_path / "new.json")]) == 1
    assert not (tmp_path / "new.json").exists()


def test_the_same_seed_gives_the_same_episode() -> None:
    runs = [evaluate(reference(), ["drawer-open-v3"], 1, first_seed=3) for _ in range(2)]
    assert runs[0][0].steps == runs[1][0].steps
    assert runs[0][0].seam_jumps_m_s == runs[1][0].seam_jumps_m_s


def test_workers_find_what_one_process_finds() -> None:
    arguments = {"steps": 2}
    alone = evaluate(reference(**arguments), ["button-press-red-v3"], 2)
    shared = evaluate(PolicyChoice(arguments=arguments), ["button-press-red-v3"], 2, workers=2)
    assert shared[0].seeds == alone[0].seeds
    assert shared[0].steps == alone[0].steps
    assert shared[0].seam_jumps_m_s == alone[0].seam_jumps_m_s


def test_the_condition_decides_what_the_policy_is_shown_and_told() -> None:
    shown = {}
    for perturbation in ("none", "brightness"):
        policy = Still()
        condition = Condition(wording="unseen", perturbation=perturbation)
        evaluate(policy, ["drawer-open-v3"], 1, condition)
        shown[perturbation] = policy.asked[0].observation
    assert shown["none"].instruction == "could you open the drawer"
    means = [shown[name].images["corner2"].mean() for name in shown]
    assert abs(means[1] / means[0] - 1) > 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency_s": -1.0}, "latency_s -1.0 must not be negative"),
        ({"wording": "sung"}, "wording 'sung' is unknown"),
        ({"perturbation": "fog"}, "perturbation 'fog' is unknown"),
    ],
)
def test_conditions_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Condition(**settings)


def test_what_cannot_be_shared_or_counted_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="2 workers need a PolicyChoice"):
        evaluate(Still(), ["drawer-open-v3"], 1, workers=2)
    with pytest.raises(ValueError, match="must each be named once"):
        evaluate(Still(), ["drawer-open-v3"] * 2, 1)


def test_what_is_wrong_is_said_and_the_status_is_not_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--tasks", "juggle"]) == 1
    assert "unknown task 'juggle'" in capsys.readouterr().err
    assert main(["--episodes", "0"]) == 1
    assert "--episodes 0" in capsys.readouterr().err
    assert main(["--workers", "0"]) == 1
    assert "--workers 0" in capsys.readouterr().err
    assert main(["--policy", "nowhere:make"]) == 1
    assert "'nowhere' cannot be imported" in capsys.readouterr().err
