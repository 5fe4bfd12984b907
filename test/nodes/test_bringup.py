"""One description of the processes serves ros2 launch and ros-vla-accel launch."""

import re
from pathlib import Path

import pytest
import yaml

from ros_vla_accel.nodes.__main__ import EXECUTABLES
from ros_vla_accel.nodes.bringup import EDGE_ARGUMENTS, processes

ROOT = Path(__file__).parents[2]
YAMLS = ("robot", "policy_args", "calibration")


def test_the_light_nodes_share_a_process_unless_told_otherwise():
    assert [p.name for p in processes("edge", {})] == ["vla_policy", "edge_control"]
    apart = [p.name for p in processes("edge", {"composed": "false"})]
    assert sorted(apart) == [
        "action_executor",
        "partition_manager",
        "quantization_controller",
        "vla_policy",
    ]


def test_every_documented_launch_argument_reaches_the_processes():
    given = {
        "namespace": "arm",
        "use_sim_time": "true",
        "log_level": "debug",
        "autostart": "false",
        "policy": "mine:make",
        "cloud_endpoint": "tcp://10.0.0.1:1",
        "cloud_keys": "mine",
        "cloud_security": "insecure-any",
        "route": "cloud",
    }
    others = {"params_file", "composed", "view", "record", *YAMLS}
    assert set(given) | others == set(EDGE_ARGUMENTS)
    for process in processes("edge", given):
        line = " ".join(process.ros_arguments())
        assert "__ns:=/arm" in line
        assert "--log-level debug" in line
        for text in (
            "use_sim_time:=true",
            "autostart:=false",
            "policy:=mine:make",
            "cloud_endpoint:=tcp://10.0.0.1:1",
            "cloud_keys:=mine",
            "cloud_security:=insecure-any",
            "route:=cloud",
        ):
            assert text in line


def test_yaml_arguments_are_paths_or_names_of_the_package_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("{}")
    for process in processes("edge", {**dict.fromkeys(YAMLS, "mine.yaml"), "composed": "false"}):
        line = process.ros_arguments()
        assert [a for a in line if "mine" in a] == [f"{n}:={tmp_path}/mine.yaml" for n in YAMLS]
    named = {"robot": "ur5e_forward_position", "policy_args": "reference_w4ax"}
    line = " ".join(processes("edge", named)[0].ros_arguments())
    assert f"policy_args:={ROOT}/config/policies/reference_w4ax.yaml" in line
    (ray,) = processes("cloud", {"backend": "ray", "replicas": "2", "ray_address": "auto"})
    assert " ".join(ray.command).endswith("--backend ray --replicas 2 --ray-address auto")
    (cloud,) = processes("cloud", {"policy_args": "reference_w4ax"})
    assert cloud.command[-1] == f"{ROOT}/config/policies/reference_w4ax.yaml"


def test_the_view_is_started_only_when_asked_for_and_sees_the_edge_s_settings():
    given = {"view": "true", "namespace": "arm", "use_sim_time": "true", "log_level": "warn"}
    *edge, view = processes("edge", given)
    assert edge == processes("edge", {**given, "view": "false"})
    line = " ".join(view.command)
    assert line.startswith("view --namespace arm --log-level warn --params-file /")
    assert line.endswith("edge.yaml --use-sim-time")
    assert not view.essential


def test_the_recorder_is_started_only_when_given_a_folder():
    *edge, recorder = processes("edge", {"record": "bags", "namespace": "arm"})
    assert edge == processes("edge", {"namespace": "arm"})
    assert recorder.name == "recorder"
    assert f"folder:={Path('bags').resolve()}" in recorder.ros_arguments()
    assert not recorder.essential


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"polcy": "x"}, ValueError, "'polcy' is no argument of edge"),
        ({"composed": "maybe"}, ValueError, "neither true nor false"),
        ({"robot": "nobody"}, FileNotFoundError, "metaworld_sawyer"),
        ({"params_file": "nothing"}, FileNotFoundError, "edge"),
        ({"policy_args": "nothing"}, FileNotFoundError, "reference_w4ax"),
        ({"calibration": "nothing"}, FileNotFoundError, "config/calibration"),
    ],
)
def test_a_wrong_argument_is_named(given, error, text):
    with pytest.raises(error) as caught:
        processes("edge", given)
    assert text in str(caught.value)


def test_cmake_installs_a_wrapper_for_each_executable():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    listed = re.search(r"set\(executables\s+([^)]*)\)", cmake).group(1).split()
    assert sorted(listed) == sorted(EXECUTABLES)


def test_cmake_generates_every_message():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    listed = re.findall(r'"msg/(\w+)\.msg"', cmake)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "msg").glob("*.msg"))


def test_parameter_files_are_in_the_form_of_ros():
    for path in (ROOT / "config").glob("*.yaml"):
        for node, content in yaml.safe_load(path.read_text()).items():
            assert node.startswith("/**"), f"{path.name}: {node}"
            assert list(content) == ["ros__parameters"]
