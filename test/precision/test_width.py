"""A width in doubt is 16 bits."""

import pytest

from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.precision.width import TIMEOUT_S, CommandedWidth, WidthCommand

OURS, OTHERS = "ab" * 32, "cd" * 32
S = 10**9


def commanded(
    bits: int = 4, policy: str = OURS, schema: int = SCHEMA_VERSION, identity: str = OURS
) -> CommandedWidth:
    width = CommandedWidth()
    width.identity = identity
    width.take(WidthCommand(schema, bits, policy), 100 * S)
    return width


def test_without_a_command_it_is_16_bits_and_no_problem() -> None:
    width = CommandedWidth()
    assert width.bits(0) == 16
    assert width.problem(0) == ""


def test_a_command_for_this_policy_is_followed() -> None:
    width = commanded()
    assert width.bits(100 * S) == 4
    assert width.problem(100 * S) == ""


@pytest.mark.parametrize(("bits", "executed"), [(2, 8), (4, 8), (8, 8), (16, 16)])
def test_without_a_calibration_no_width_below_8_bits_is_trusted(bits: int, executed: int) -> None:
    width = commanded(bits, policy="")
    assert width.bits(100 * S) == executed
    assert width.problem(100 * S) == ""


def test_when_the_bits_are_needed_is_told_while_the_command_counts() -> None:
    width = CommandedWidth()
    width.identity = OURS
    assert width.needed_ns(0) == 0
    width.take(WidthCommand(SCHEMA_VERSION, 16, OURS, 7 * S), 100 * S)
    assert width.needed_ns(100 * S) == 7 * S
    assert width.needed_ns(102 * S) == 0  # Silent: 16 bits, now.


def test_a_command_for_another_policy_is_refused_with_both_names_and_the_way_out() -> None:
    width = commanded(policy=OTHERS)
    assert width.bits(100 * S) == 16
    for text in (OTHERS[:12], OURS[:12], "16 bits", "`ros-vla-accel calibrate`"):
        assert text in width.mismatch


def test_before_the_policy_is_loaded_nothing_is_compared() -> None:
    width = commanded(policy=OTHERS, identity="")
    assert width.mismatch == ""
    width.identity = OURS
    assert width.mismatch


def test_a_controller_that_falls_silent_leaves_no_width_behind() -> None:
    width = commanded()
    late_ns = 100 * S + round(TIMEOUT_S * 1e9)
    assert width.bits(late_ns) == 4
    assert width.bits(late_ns + 1) == 16
    assert "no precision command for 1 s" in width.problem(late_ns + 1)
    width.take(WidthCommand(SCHEMA_VERSION, 8, OURS), late_ns + 2)
    assert width.bits(late_ns + 2) == 8


@pytest.mark.parametrize(("given", "text"), [({"bits": 3}, "3 bits"), ({"schema": 9}, "schema 9")])
def test_what_cannot_be_read_is_16_bits_and_said(given: dict[str, int], text: str) -> None:
    width = commanded(**given)  # type: ignore[arg-type]
    assert width.bits(100 * S) == 16
    assert text in width.problem(100 * S)
