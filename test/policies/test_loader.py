from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ros_vla_accel.contracts import PolicySpec
from ros_vla_accel.policies import PolicyLoadError, load_policy

SPEC = PolicySpec("mine", (), ("j0",), ("vx",), 4, 0.05, "cartesian_velocity", replan_rows=2)


class Mine:
    def __init__(self, spec: object = SPEC, gain: float = 1.0) -> None:
        if gain < 0:
            raise ValueError("gain must not be negative")
        self.spec, self.gain = spec, gain

    def infer(self, requests: object) -> list[object]:
        return []

    def reset(self, episode_id: int) -> None:
        pass


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_policy", sys.modules[__name__])


def test_arguments_come_from_a_mapping_or_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    path.write_text("gain: 2.5\n")
    assert load_policy("my_policy:Mine", {"gain": 1.5}).gain == 1.5  # type: ignore[attr-defined]
    assert load_policy("my_policy:Mine", path).gain == 2.5  # type: ignore[attr-defined]
    assert load_policy("my_policy:Mine").gain == 1.0  # type: ignore[attr-defined]


def test_the_reference_policy_loads_by_name(checkpoint: Path) -> None:
    name = "ros_vla_accel.policies:reference"
    assert load_policy(name, {"checkpoint": str(checkpoint)}).spec.name == "small"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("my_policy", None, "must read 'module:factory'"),
        ("no_such_module:make", None, "'no_such_module' cannot be imported"),
        ("my_policy:absent", None, "has no function 'absent'"),
        ("my_policy:Mine", {"gain": -1}, "with gain=-1 failed: gain must not be negative"),
        ("my_policy:Mine", {"typo": 1}, "typo"),
        ("my_policy:Mine", {"spec": None}, r"spec is NoneType, it must be contracts\.PolicySpec"),
        ("my_policy:Path", None, "has no method 'infer'"),
        ("my_policy:Mine", "missing.yaml", "no such file"),
    ],
)
def test_what_is_wrong_is_said(name: str, args: object, message: str) -> None:
    with pytest.raises(PolicyLoadError, match=message):
        load_policy(name, args)  # type: ignore[arg-type]


def test_a_spec_without_names_is_refused() -> None:
    nameless = PolicySpec("mine", (), (), ("vx",), 4, 0.05, "x", replan_rows=2)
    with pytest.raises(PolicyLoadError, match="state_names"):
        load_policy("my_policy:Mine", {"spec": nameless})


def test_argument_files_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    for text, message in (("- 1\n", "must be a mapping"), ("a: [1", "are not YAML")):
        path.write_text(text)
        with pytest.raises(PolicyLoadError, match=message):
            load_policy("my_policy:Mine", path)
