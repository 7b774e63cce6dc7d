"""Where words begin and end: for whole-word masking, also of languages that write no spaces."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptImportError, MmptValueError

logger = logging.getLogger(__name__)

Words = Literal["tokenizer", "spaces", "jieba"]
Span = tuple[int, int]
WORDS: tuple[Words, ...] = ("tokenizer", "spaces", "jieba")
IDEOGRAPH = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2}")
_BETWEEN_SPACES = re.compile(r"\w+|[^\w\s]")


class WordBoundaries:
    """Number the words that tokens belong to.

    Args:
        words: "tokenizer": as its pre-tokenizer splits, which takes each Chinese character for a word.
            "spaces": what the text separates by spaces or punctuation, for texts that were segmented before.
            "jieba": as jieba segments Chinese.

    Raises:
        ImportError: if jieba is asked for and not installed.
        ValueError: if `words` is none of these.
    """

    def __init__(self, words: Words) -> None:
        if words not in WORDS:
            raise MmptValueError(f"words is {words!r}, expected one of {', '.join(WORDS)}")
        self.words = words
        self._warned = words != "tokenizer"
        self._split = _SPLITTERS[words]() if words in _SPLITTERS else None

    def number(self, encoded: Any, texts: Sequence[tuple[str, str | None]]) -> NDArray[np.int64]:
        """Return the word that each token belongs to, (batch, tokens); -1 for special tokens and padding.

        Args:
            encoded: what a fast tokenizer returned for the texts, padded.
            texts: each with its second text, if it has one.
        """
        if self._split is None:
            self._report_characters(texts)
            rows = [encoded.word_ids(row) for row in range(len(texts))]
        else:
            rows = [_by_spans(encoded[row], [self._spans(part) for part in texts[row]]) for row in range(len(texts))]
        return np.array([[-1 if word is None else word for word in row] for row in rows], dtype=np.int64)

    def _spans(self, text: str | None) -> list[Span]:
        return [] if text is None or self._split is None else self._split(text)

    def _report_characters(self, texts: Sequence[tuple[str, str | None]]) -> None:
        """Warn, once, that words of Chinese texts are single characters."""
        if self._warned or not any(IDEOGRAPH.search(part) for text in texts for part in text if part):
            return
        self._warned = True
        logger.warning(
            "whole_word is on, and the tokenizer takes each Chinese character for a word (said once); set "
            "masking.words to 'spaces' where texts are segmented by spaces, or to 'jieba'"
        )


def token_ids(tokenizer: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids of the tokens that words begin with and of the pieces that only continue one ("##ing").

    Special tokens and those reserved as [unusedN] are in neither.

    Raises:
        ValueError: if no token begins a word.
    """
    special = set(tokenizer.all_special_ids)
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    mark = getattr(model, "continuing_subword_prefix", None)
    first: list[int] = []
    later: list[int] = []
    for token, number in tokenizer.get_vocab().items():
        if number not in special and not token.startswith("[unused"):
            (later if mark and token.startswith(mark) and token != mark else first).append(number)
    if not first:
        raise MmptValueError("the tokenizer has special tokens only, expected ordinary words beside them")
    return np.array(sorted(first), dtype=np.int64), np.array(sorted(later), dtype=np.int64)


def split_at_spaces(text: str) -> list[Span]:
    """Return (start, end) of every word, spaces and punctuation separating them."""
    return [match.span() for match in _BETWEEN_SPACES.finditer(text)]


def _jieba() -> Callable[[str], list[Span]]:
    try:
        import jieba  # type: ignore[import-not-found]
    except ImportError as error:
        raise MmptImportError("words 'jieba' needs jieba: pip install 'mmpt[chinese]'") from error
    jieba.setLogLevel(logging.WARNING)
    return lambda text: [(start, end) for _, start, end in jieba.tokenize(text)]


_SPLITTERS: dict[str, Callable[[], Callable[[str], list[Span]]]] = {
    "spaces": lambda: split_at_spaces,
    "jieba": _jieba,
}


def _by_spans(encoding: Any, spans: Sequence[Sequence[Span]]) -> list[int | None]:
    """Return the number of the span that each token begins in; None for tokens that are of no text.

    Args:
        encoding: of one row.
        spans: of the text and of its second text.
    """
    starts = [np.array([start for start, _ in part], dtype=np.int64) for part in spans]
    return [
        None if part is None else int(np.searchsorted(starts[part], begin, side="right")) - 1
        for part, (begin, _) in zip(encoding.sequence_ids, encoding.offsets, strict=True)
    ]
