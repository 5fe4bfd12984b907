"""What the demo runs by default, and what its tables say of the precision."""

import math

import pytest
from rich.console import Console

from ros_vla_accel.msg import PrecisionCommand
from ros_vla_accel.nodes.bringup import DEFAULT_POLICY
from ros_vla_accel.nodes.demo import CALIBRATION, QUANTIZED, _parser, policy_args
from ros_vla_accel.nodes.demo_operator import Watch
from ros_vla_accel.nodes.demo_view import live_table, summary, summary_table
from ros_vla_accel.policies.loader import load_policy, policy_arguments
from ros_vla_accel.precision import Calibration
from ros_vla_accel.resources import existing_path


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], QUANTIZED),
        (["--policy-args", ""], ""),
        (["--policy-args", "none"], ""),
        (["--policy-args", "mine.yaml"], "mine.yaml"),
        (["--policy", "mine:make"], ""),
    ],
)
def test_the_default_policy_is_quantized_unless_told_otherwise(argv, expected):
    assert policy_args(_parser().parse_args(argv)) == expected


def test_the_default_arguments_and_their_calibration_come_with_the_package():
    assert policy_arguments(QUANTIZED) == {"quantize": "w4ax", "steps": 2}
    calibration = Calibration.load(existing_path(CALIBRATION, "config/calibration"))
    calibration.check(load_policy(DEFAULT_POLICY, QUANTIZED).spec.identity)


def text(table) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_live_table_says_width_scores_and_reason():
    watch = Watch()
    assert "precision" not in text(live_table(watch, "drawer-open", "open the drawer"))
    watch.precision = PrecisionCommand(
        activation_bits=8,
        sensitivity=0.31,
        motion_fineness=-0.2,
        angular_jerk=0.5,
        reason="rise, needed in 3 rows",
    )
    shown = " ".join(text(live_table(watch, "drawer-open", "open the drawer")).split())
    for part in ("8 bits, S 0.31", "fineness -0.20", "0.50: rise", "needed in 3 rows"):
        assert part in shown
    watch.precision = PrecisionCommand(
        activation_bits=16, sensitivity=math.nan, reason="cold start, 3 periods to go"
    )
    shown = text(live_table(watch, "drawer-open", "open the drawer"))
    assert "16 bits: cold start" in shown
    assert "nan" not in shown


def test_the_summary_has_the_share_of_inferences_per_width():
    watch = Watch()
    watch.executed.update({4: 3, 16: 1})
    numbers = summary(watch, [])
    assert numbers["widths_executed"] == {"4": 0.75, "16": 0.25}
    assert "4 bits: 75%, 16 bits: 25%" in text(summary_table(numbers, []))
