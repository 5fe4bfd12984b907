"""A rise of the width asks once per chunk, and only where the policy can tell the difference."""

import pytest

from ros_vla_accel.partition.width_rise import REMEMBERED, WidthRise


def over(bits: int, commanded: int, widths: tuple[int, ...] = (2, 4, 8, 16)) -> WidthRise:
    """Chunk 1 was made with ``bits``, and ``commanded`` is the width now."""
    rise = WidthRise(widths)
    rise.made(1, bits)
    rise.command(commanded)
    return rise


def test_more_bits_than_the_chunk_has_are_asked_for_once() -> None:
    rise = over(2, commanded=8)
    assert rise.asks(1) == "8 bits needed, chunk in play has 2"
    assert rise.serve(1)
    rise.command(16)
    assert not rise.asks(1)
    assert not rise.serve(1)
    rise.made(2, 8)
    assert rise.serve(2), "the next chunk may ask again"
    assert not rise.asks(1), "nor may it when it is in play again: the next was dropped"


@pytest.mark.parametrize(
    ("bits", "commanded", "widths"),
    [
        (8, 4, (2, 4, 8, 16)),
        (8, 8, (2, 4, 8, 16)),
        (16, 8, (16,)),
        (4, 8, (2, 8, 16)),
        (8, 16, (4,)),
    ],
)
def test_a_rise_that_changes_nothing_is_none(
    bits: int, commanded: int, widths: tuple[int, ...]
) -> None:
    assert not over(bits, commanded, widths).asks(1)


def test_an_inference_at_too_few_bits_does_not_use_up_the_ask_of_a_later_rise() -> None:
    rise = over(4, commanded=2)
    assert not rise.serve(1)
    rise.command(8)
    assert rise.asks(1)


def test_a_chunk_of_unknown_width_is_let_be_and_memory_is_bounded() -> None:
    rise = over(2, commanded=8)
    assert not rise.asks(99)
    for request_id in range(2, 2 + REMEMBERED):
        rise.made(request_id, 2)
    assert not rise.asks(1)


def test_what_is_needed_after_the_next_chunk_comes_anyway_is_not_hurried() -> None:
    rise = over(2, commanded=8)
    rise.command(8, needed_ns=500)
    assert rise.asks(1, due_ns=501)
    assert not rise.asks(1, due_ns=500)
    assert not rise.serve(1, due_ns=500)
    rise.command(8)  # Now, after all: it was not used up.
    assert rise.serve(1, due_ns=500)
