from __future__ import annotations

import pytest

from ros_vla_accel.policies.config import ModelConfig
from ros_vla_accel.policies.instructions import PARAPHRASES, WORDINGS, instructions
from ros_vla_accel.policies.text import PADDING, UNKNOWN, WordTokenizer


def test_case_and_punctuation_do_not_matter() -> None:
    tokenize = WordTokenizer.from_texts(["Open the drawer"], 6)
    assert tokenize.vocabulary == ("drawer", "open", "the")
    assert (tokenize("Open the DRAWER!") == tokenize("open the drawer")).all()


def test_unknown_words_and_padding_have_their_own_ids() -> None:
    tokenize = WordTokenizer(["open", "the"], 5)
    assert tokenize("open the fridge").tolist() == [2, 3, UNKNOWN, PADDING, PADDING]


def test_long_instructions_are_cut_off() -> None:
    assert len(WordTokenizer(["a"], 4)("a " * 50)) == 4


def test_an_instruction_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="has no words"):
        WordTokenizer(["a"], 4)(" ... ")


def test_every_task_has_several_paraphrases_that_no_other_task_shares() -> None:
    texts = [t for task in PARAPHRASES for w in WORDINGS for t in instructions(f"{task}-v3", w)]
    assert len({text.lower() for text in texts}) == len(texts)
    assert min(len(instructions(task, w)) for task in PARAPHRASES for w in WORDINGS) >= 5


def test_no_instruction_is_longer_than_the_policy_reads() -> None:
    texts = [t for task in PARAPHRASES for w in WORDINGS for t in instructions(task, w)]
    assert max(len(text.split()) for text in texts) <= ModelConfig().words


def test_an_unknown_wording_is_refused() -> None:
    with pytest.raises(ValueError, match="wording 'sung' is unknown"):
        instructions("door-open", "sung")


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="no instructions for task 'juggle'"):
        instructions("juggle")
