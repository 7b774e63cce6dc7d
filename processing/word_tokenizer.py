"""A tokenizer of whole words, made from the texts of a small corpus."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmpt.configuration.errors import MmptValueError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_word_tokenizer(texts: Iterable[str], *, min_count: int = 1) -> PreTrainedTokenizerFast:
    """Make a lower-casing tokenizer whose vocabulary is the words and punctuation marks of `texts`.

    The ids are the special tokens', then the words' by falling count and then by alphabet. Pairs are written
    `[CLS] one [SEP] two [SEP]` with token types 0 and 1.

    Args:
        min_count: rarer words become [UNK].

    Raises:
        ValueError: if no word is left.
    """
    if isinstance(texts, str):
        raise MmptValueError(f"texts is one string ({texts[:40]!r}), expected several. Pass [text]")
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    rows = 0
    for text in texts:
        rows += 1
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    words = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if counts[word] >= min_count]
    if not words:
        raise MmptValueError(
            f"the {rows} texts hold no word that occurs {min_count} times, expected at least one. "
            "Is the text column the right one?"
        )
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
