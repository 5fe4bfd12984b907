"""Instructions as word ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

PADDING = 0
UNKNOWN = 1
_WORD = re.compile(r"[a-z0-9]+")


class WordTokenizer:
    """Lower-case words to ids: 0 pads, 1 is any unknown word, the vocabulary follows.

    vocabulary: words in order of their ids. length: ids per instruction; more are cut off.
    """

    def __init__(self, vocabulary: Sequence[str], length: int) -> None:
        self.vocabulary = tuple(vocabulary)
        self.length = length
        self._ids = {word: i + 2 for i, word in enumerate(self.vocabulary)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], length: int) -> WordTokenizer:
        """A tokenizer that knows every word of ``texts``, in lower case."""
        words = {word for text in texts for word in _WORD.findall(text.lower())}
        return cls(sorted(words), length)

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.vocabulary) + 2

    def __call__(self, text: str) -> np.ndarray:
        """Ids (length,) int64. ValueError when the text holds no word."""
        words = _WORD.findall(text.lower())[: self.length]
        if not words:
            raise ValueError(f"instruction {text!r} has no words; say what to do in English")
        ids = np.full(self.length, PADDING, np.int64)
        ids[: len(words)] = [self._ids.get(word, UNKNOWN) for word in words]
        return ids
