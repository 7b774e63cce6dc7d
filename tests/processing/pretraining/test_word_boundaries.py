"""Words of whole-word masking: as the tokenizer splits, between spaces, or as jieba segments."""

import logging
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmpt.processing.pretraining.masking import KeyedRandom, mask_tokens
from mmpt.processing.pretraining.word_boundaries import WordBoundaries, split_at_spaces, token_ids
from mmpt.processing.word_tokenizer import build_word_tokenizer
from tests.factories.examples import make_collator, random_examples, small_config

SEGMENTED = "一只 红色 的 小狗 在 草地 上 奔跑 。"
PLAIN = SEGMENTED.replace(" ", "")
TOKENIZER = build_word_tokenizer([SEGMENTED])


def numbered(words: Any, texts: list[tuple[str, str | None]], tokenizer: Any = TOKENIZER) -> np.ndarray:
    rows = [text if pair is None else (text, pair) for text, pair in texts]
    return WordBoundaries(words).number(tokenizer(rows, padding=True), texts)


def test_a_chinese_tokenizer_splits_characters_and_spaces_join_them() -> None:
    assert numbered("tokenizer", [(SEGMENTED, None)])[0].tolist() == [-1, *range(14), -1]
    found = numbered("spaces", [(SEGMENTED, None)])[0].tolist()
    assert found == [-1, 0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, -1]


def test_second_texts_and_padding_have_their_own_numbers() -> None:
    found = numbered("spaces", [("红色 的", "小狗"), ("狗", None)])
    assert found.tolist() == [[-1, 0, 0, 1, -1, 0, 0, -1], [-1, 0, -1, -1, -1, -1, -1, -1]]


def test_jieba_finds_the_words_of_a_text_without_spaces() -> None:
    pytest.importorskip("jieba")
    assert numbered("jieba", [(PLAIN, None)])[0].tolist() == numbered("spaces", [(SEGMENTED, None)])[0].tolist()


def test_punctuation_is_a_word_of_its_own() -> None:
    text = "A dog, 红色。"
    assert [text[start:end] for start, end in split_at_spaces(text)] == ["A", "dog", ",", "红色", "。"]


def test_given_words_are_masked_as_one() -> None:
    examples = [example | {"text": SEGMENTED} for example in random_examples(60)]
    config = small_config(("mlm",), vocab_size=len(TOKENIZER))
    collator = make_collator(config=config, tokenizer=TOKENIZER, whole_word=True, words="spaces")
    selected = (collator(examples)["mlm_labels"] != -100).numpy()
    words = numbered("spaces", [(SEGMENTED, None)])[0]
    for word in range(9):
        together = selected[:, words == word]
        assert (together == together[:, :1]).all()
    assert 0 < selected[:, words >= 0].mean() < 0.5


def test_words_without_whole_word_and_unknown_words_are_errors() -> None:
    with pytest.raises(ValueError, match="words is 'spaces' without whole_word"):
        make_collator(("mlm",), words="spaces")
    with pytest.raises(ValueError, match="words is 'character', expected one of tokenizer, spaces, jieba"):
        make_collator(("mlm",), whole_word=True, words="character")


def test_whole_word_that_does_nothing_for_chinese_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    words = WordBoundaries("tokenizer")
    with caplog.at_level(logging.WARNING, "mmpt"):
        for text in ("a red dog", PLAIN, PLAIN):
            words.number(TOKENIZER([text]), [(text, None)])
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "whole_word is on, and the tokenizer takes each Chinese chara"
    ]


def test_a_piece_that_continues_a_word_never_begins_one() -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "st", "dog", "[unused1]", "##ar", "##ing"]
    vocabulary = {name: place for place, name in enumerate(names)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=False))
    first, later = token_ids(PreTrainedTokenizerFast(tokenizer_object=backend, **special))
    assert (first.tolist(), later.tolist()) == ([5, 6, 7], [9, 10])
    ids = np.tile([5, 6, 9], (2000, 1))
    draws = KeyedRandom(0, 0, np.arange(2000))
    corrupted, _ = mask_tokens(ids, np.ones_like(ids, bool), 4, first, 1.0, draws, None, later)
    assert set(corrupted[:, :2].ravel().tolist()) == {4, *first.tolist()}
    assert set(corrupted[:, 2].tolist()) == {4, *later.tolist()}
