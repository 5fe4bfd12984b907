"""config/*.yaml names every parameter of the nodes, with the default that the node has."""

from pathlib import Path

import pytest
import yaml

from ros_vla_accel.nodes.action_executor import ActionExecutor
from ros_vla_accel.nodes.bringup import NODE_ARGUMENTS
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.quantization_controller import QuantizationController
from ros_vla_accel.nodes.vla_policy import VlaPolicy

CONFIG = Path(__file__).parents[2] / "config"
NOT_OURS = {"use_sim_time", "start_type_description_service"}


@pytest.mark.parametrize(
    "kind", [VlaPolicy, ActionExecutor, PartitionManager, QuantizationController]
)
def test_the_parameter_file_lists_each_parameter_with_its_default(bench, kind):
    node = bench.add(kind(namespace="/vla"))
    content = yaml.safe_load((CONFIG / "edge.yaml").read_text())
    listed = content[f"/**/{node.get_name()}"]["ros__parameters"]
    declared = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith("qos_overrides") and name not in NOT_OURS
    }
    assert set(declared) - set(NODE_ARGUMENTS) == set(listed)
    for name, value in listed.items():
        default = declared[name]
        assert (list(default) if isinstance(value, list) else default) == value, name
        assert type(default) is type(value) or isinstance(value, list), name
