"""One call turns text and regions into a batch, in any language."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

import mmpt  # noqa: F401  (registers the Auto classes)
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from tests.factories.examples import FEATURE, TOKENIZER, make_collator, random_regions, small_config

TEXT_NAMES = ["input_ids", "token_type_ids", "attention_mask"]
REGION_NAMES = ["region_features", "region_boxes", "region_attention_mask"]


@pytest.fixture
def processor() -> MmptProcessor:
    return MmptProcessor(MmptImageProcessor(), TOKENIZER)


def test_text_beside_regions_is_one_batch(processor: MmptProcessor) -> None:
    texts = ["red star", "a small dog near"]
    images = [random_regions(3), random_regions(1)]
    batch = processor(text=texts, images=images, padding=True, return_tensors="pt")
    assert list(batch) == TEXT_NAMES + REGION_NAMES
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    expected = TOKENIZER(texts, padding=True, return_tensors="pt") | MmptImageProcessor()(images, return_tensors="pt")
    for name, value in expected.items():
        torch.testing.assert_close(batch[name], value, rtol=0, atol=0)


def test_one_text_and_one_image_need_no_lists(processor: MmptProcessor) -> None:
    batch = processor(random_regions(2), "red star", return_tensors="pt")
    assert batch["input_ids"].tolist() == [TOKENIZER("red star")["input_ids"]]
    assert batch["region_features"].shape == (1, 2, FEATURE)


def test_numpy_and_lists_are_given_on_demand(processor: MmptProcessor) -> None:
    batch = processor(text=["red"], images=[random_regions(2)], return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in batch.values())
    batch = processor(text=["red", "red star"], images=[random_regions(2)] * 2)
    assert batch["input_ids"] == [TOKENIZER("red")["input_ids"], TOKENIZER("red star")["input_ids"]]


def test_either_part_may_stand_alone(processor: MmptProcessor) -> None:
    assert list(processor(text=["red"])) == TEXT_NAMES
    assert list(processor(images=[random_regions(2)])) == REGION_NAMES
    assert list(processor(images=random_regions(2, type_ids=np.ones(2)))) == [*REGION_NAMES, "region_type_ids"]


def test_pairs_of_texts_are_given_as_tuples_or_beside_each_other(processor: MmptProcessor) -> None:
    expected = TOKENIZER(["red", "blue"], ["star", "ring"])
    assert expected["token_type_ids"][0] == [0, 0, 0, 1, 1]
    for batch in (
        processor(text=[("red", "star"), ("blue", "ring")]),
        processor(text=["red", "blue"], text_pair=["star", "ring"]),
    ):
        assert {name: batch[name] for name in expected} == dict(expected)


def test_options_of_both_parts_travel_through_the_call(processor: MmptProcessor) -> None:
    image = {"features": np.ones((3, 2)), "boxes": [[0, 0, 10, 10]] * 3, "width": 20, "height": 10}
    batch = processor(
        text=["red star ring dog"], images=[image], box_format="pixel", max_regions=2, truncation=True, max_length=4
    )
    assert len(batch["input_ids"][0]) == 4
    assert batch["region_boxes"].tolist() == [[[0, 0, 0.5, 1]] * 2]
    nested = processor(images=[image], images_kwargs={"box_format": "pixel", "whole_image_region": True})
    assert nested["region_features"].shape == (1, 4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "got neither text nor regions, expected text=..., images=..., or both"),
        (
            {"text": "red", "images": [random_regions(1)] * 2},
            "got 1 texts and regions of 2 images, expected one text an image; repeat the regions",
        ),
        ({"text": ["red"] * 3, "images": [random_regions(1)] * 2}, "got 3 texts and regions of 2 images"),
        ({"text": "red", "images": random_regions(1), "max_regions": 0}, "max_regions is 0, expected 1 or more"),
        (
            {"images": {"features": np.ones((1, 2)), "box": [[0, 0, 1, 1]]}},
            "regions have no field 'box'; did you mean 'boxes'",
        ),
    ],
)
def test_wrong_calls_are_refused(processor: MmptProcessor, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**call)


@pytest.mark.parametrize("loader", [MmptProcessor, AutoProcessor])
def test_it_survives_saving_and_loading(tmp_path: Path, loader: Any) -> None:
    saved = MmptProcessor(MmptImageProcessor(max_regions=2, whole_image_region=True), TOKENIZER)
    saved.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert isinstance(loaded, MmptProcessor)
    call = {"text": ["red star", "dog"], "images": [random_regions(4), random_regions(1)], "padding": True}
    before, after = saved(**call, return_tensors="pt"), loaded(**call, return_tensors="pt")
    assert list(before) == list(after)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_auto_processor_finds_it_beside_a_configuration(tmp_path: Path) -> None:
    MmptProcessor(MmptImageProcessor(), TOKENIZER).save_pretrained(tmp_path)
    small_config().save_pretrained(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), MmptProcessor)
    assert AutoTokenizer.from_pretrained(tmp_path)("red star")["input_ids"] == TOKENIZER("red star")["input_ids"]


def test_it_works_in_a_batched_map_of_datasets(processor: MmptProcessor) -> None:
    images = [random_regions(3, seed) for seed in range(4)]
    table = datasets.Dataset.from_dict(
        {
            "text": ["red star", "blue ring", "dog", "big dog"],
            "features": [image.features.tolist() for image in images],
            "boxes": [image.boxes.tolist() for image in images],
        }
    )

    def process(rows: dict[str, list[Any]]) -> Any:
        regions = [{"features": f, "boxes": b} for f, b in zip(rows["features"], rows["boxes"], strict=True)]
        return processor(text=rows["text"], images=regions, padding="max_length", max_length=5, truncation=True)

    mapped = table.map(process, batched=True, batch_size=2, remove_columns=table.column_names).with_format("torch")
    expected = processor(text=table["text"][:], images=images, padding="max_length", max_length=5, return_tensors="pt")
    for name, value in expected.items():
        torch.testing.assert_close(mapped[:][name], value)


CHINESE = ("一只红色的狗在草地上", "两个人坐在桌子旁边", "蓝色的星星在圆环上面", "桌子上有一只猫")
ARABIC = ("كلب أحمر صغير", "نجمة زرقاء فوق الحلقة", "قطة على الطاولة")
FRENCH = ("un chien près de l'étoile", "la fenêtre là-bas", "une bête à côté du garçon")


def trained_tokenizer(texts: tuple[str, ...], tmp_path: Path) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer as BERT's multilingual ones are, saved and loaded again by AutoTokenizer."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("texts", [CHINESE, ARABIC, FRENCH], ids=["chinese", "arabic", "french"])
def test_any_language_goes_from_text_to_masked_batch(texts: tuple[str, ...], tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(texts, tmp_path)
    config = small_config(vocab_size=len(tokenizer))
    collator = make_collator(
        config=config, tokenizer=tokenizer, shares={"text": 1.0}, probability=0.5, whole_word=True, max_text_length=32
    )
    batch = collator(
        [{"text": text, "image_id": str(row), "regions": random_regions(2, row)} for row, text in enumerate(texts)]
    )
    labels = batch["mlm_labels"]
    original = torch.where(labels == -100, batch["input_ids"], labels)
    for row, text in enumerate(texts):
        plain = tokenizer(text, truncation=True, max_length=32)["input_ids"]
        assert original[row, : len(plain)].tolist() == plain
        assert tokenizer.unk_token_id not in plain
    chosen = labels[labels != -100].tolist()
    assert chosen
    assert not set(chosen) & set(tokenizer.all_special_ids)
    letters = set("".join(texts))
    assert all(set(token.removeprefix("##")) <= letters for token in tokenizer.convert_ids_to_tokens(chosen))
