"""The word tokenizer: ids, splitting, pairs, and saving."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mmpt.processing.word_tokenizer import build_word_tokenizer

TEXTS = ["A red circle.", "a Blue square, a red star"]


def test_vocabulary_is_specials_then_words_by_count_then_alphabet():
    tokenizer = build_word_tokenizer(TEXTS)
    expected = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", ",", ".", "blue", "circle", "square", "star"]
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == expected
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 1, 4)


def test_pair_has_token_types_and_separators():
    encoded = build_word_tokenizer(TEXTS)("Red, circle", "green star")
    assert encoded["input_ids"] == [2, 6, 7, 10, 3, 1, 12, 3]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert encoded["attention_mask"] == [1] * 8


def test_rare_words_are_unknown():
    tokenizer = build_word_tokenizer(TEXTS, min_count=2)
    assert tokenizer.tokenize("a red star") == ["a", "red", "[UNK]"]


def test_mask_token_inside_a_text_is_one_token():
    assert build_word_tokenizer(TEXTS)("a [MASK] circle")["input_ids"] == [2, 5, 4, 10, 3]


def test_saved_tokenizer_encodes_the_same(tmp_path):
    tokenizer = build_word_tokenizer(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for pair in (("a red circle", "blue [MASK] ."), ("Square unknownword", None)):
        assert dict(loaded(*pair)) == dict(tokenizer(*pair))
    batch = loaded(["a", "a red star"], padding=True, truncation=True, max_length=4)
    assert batch["input_ids"] == [[2, 5, 3, 0], [2, 5, 6, 3]]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.sampled_from(["red", "blue", "star", ",", ".", "a"]), min_size=1), min_size=1))
def test_every_word_of_the_texts_is_known_whatever_their_order(rows):
    texts = [" ".join(words) for words in rows]
    tokenizer = build_word_tokenizer(texts)
    assert tokenizer.get_vocab() == build_word_tokenizer(texts[::-1]).get_vocab()
    for words, text in zip(rows, texts, strict=True):
        assert tokenizer.tokenize(text) == words


@pytest.mark.parametrize(("texts", "min_count"), [([], 1), (["", "  "], 1), (["a b"], 2)])
def test_no_word_is_an_error(texts, min_count):
    with pytest.raises(ValueError, match=f"the {len(texts)} texts hold no word that occurs {min_count} times"):
        build_word_tokenizer(texts, min_count=min_count)


def test_one_string_is_an_error():
    with pytest.raises(ValueError, match="texts is one string"):
        build_word_tokenizer("a red circle")
