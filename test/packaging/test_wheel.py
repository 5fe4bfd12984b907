"""An installed wheel finds its messages, parameters and checkpoint away from the source tree."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path.insert(0, sys.argv[1])
import ros_vla_accel
assert ros_vla_accel.__file__.startswith(sys.argv[1]), ros_vla_accel.__file__
from ros_vla_accel.msg import ActionChunk
assert ActionChunk(horizon=3).horizon == 3
from ros_vla_accel.nodes.bringup import processes
assert [p.name for p in processes("edge", {})] == ["vla_policy", "edge_control"]
from ros_vla_accel.policies.loader import load_policy
print(load_policy("ros_vla_accel.policies:reference").spec.checkpoint_hash)
"""


@pytest.mark.slow
def test_a_wheel_works_away_from_the_source_tree(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, ROOT]
    subprocess.run(command, check=True)
    run = subprocess.run(
        [sys.executable, "-P", "-c", CHECK, site],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.strip()) == 64
