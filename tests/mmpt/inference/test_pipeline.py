"""The pipeline against the processor and the model called by hand, one example at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, ViTConfig, ViTImageProcessorPil

from mmpt import MmptPipeline, RegionExtractor
from mmpt.inference.model_functions import FUNCTIONS
from mmpt.modeling_mmpt.task_models import MODELS
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from mmpt.tasks.table import TASKS
from tests.factories.examples import FEATURE, TOKENIZER, random_regions
from tests.factories.models import STREAMS, tiny_backbone, tiny_config, tiny_pretraining

TEXTS = ["a red star above a small dog", "blue ring", "green star near blue dog", "dog", "small red ring near star"]
COUNTS = (2, 4, 1, 3, 0)
SIZE = {"width": 100, "height": 80}
IMAGES = [random_regions(count, seed=seed, image_id=f"image-{seed}", **SIZE) for seed, count in enumerate(COUNTS)]
PROCESSOR = MmptProcessor(MmptImageProcessor(), TOKENIZER)
LABELS = {0: "no", 1: "perhaps", 2: "yes"}
SMALL: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "max_position_embeddings": 32,
    "region_type_embedding": "own",
    "id2label": LABELS,
    "contrastive_size": 4,
}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


def task_model(stream: str, task: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    return MODELS[f"Mmpt{stream.capitalize()}StreamFor{task}"](tiny_config(stream, **SMALL | fields)).eval()


def pretraining(stream: str, **fields: Any) -> Any:
    return tiny_pretraining(stream, **SMALL | fields)


def pipeline_of(model: Any, processor: MmptProcessor = PROCESSOR, batch_size: int = 2, **fields: Any) -> MmptPipeline:
    """A pipeline whose batches have two examples, so that five need three, the last of them alone."""
    return MmptPipeline(model, processor, batch_size=batch_size, **fields)


def by_hand(model: Any, text: Any, image: Regions | list[Regions], **more: Any) -> Any:
    """The output for one example, without padding and without batch."""
    images = image if isinstance(image, list) else [image]
    texts = text if isinstance(text, list) else [text]
    batch = PROCESSOR(text=texts, return_tensors="pt", padding=True)
    batch.update(PROCESSOR(images=images, return_tensors="pt"))
    with torch.no_grad():
        return model(**batch, **more)


def assert_ranked(found: list[dict[str, Any]], scores: Tensor, names: Any, key: str) -> None:
    """Check that the entries are the names with their scores, best first."""
    order = scores.argsort(descending=True)[: len(found)].tolist()
    assert [each[key] for each in found] == [names[number] for number in order]
    np.testing.assert_allclose([each["score"] for each in found], scores[order], atol=1e-5)


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Check that the entries are the same in the same order, up to rounding."""
    for one, other in zip(found, expected, strict=True):
        assert one == other | {"score": pytest.approx(other["score"], abs=1e-5)}


def test_masked_words_get_the_most_probable_tokens(stream: str):
    model = pretraining(stream)
    texts = ["a [MASK] star", "[MASK] ring near [MASK] dog", "[MASK]", "the blue [MASK] above", "a [MASK] [MASK]"]
    found = pipeline_of(model).fill_mask(texts, IMAGES, top_k=3)
    assert [len(masks) for masks in found] == [1, 2, 1, 1, 2]
    for text, image, masks in zip(texts, IMAGES, found, strict=True):
        logits = by_hand(model, text, image).mlm_logits[0]
        places = [n for n, token in enumerate(PROCESSOR.tokenizer(text)["input_ids"]) if token == 4]
        for place, best in zip(places, masks, strict=True):
            assert_ranked(best, logits[place].softmax(-1), range(len(TOKENIZER)), "token")
            assert [each["token_str"] for each in best] == [TOKENIZER.decode([each["token"]]) for each in best]
            assert len(best) == 3


@pytest.mark.parametrize("loss", ["bce", "kl"])
def test_answers_have_their_own_probability_or_share_one(stream: str, loss: str):
    model = task_model(stream, "QuestionAnswering", answer_loss=loss)
    found = pipeline_of(model).answer(TEXTS, IMAGES, top_k=2)
    for text, image, best in zip(TEXTS, IMAGES, found, strict=True):
        logits = by_hand(model, text, image).logits[0]
        scores = logits.sigmoid() if loss == "bce" else logits.softmax(-1)
        assert_ranked(best, scores, LABELS, "answer")
        assert len(best) == 2


def test_an_answer_that_is_read_from_the_mask_has_one_to_be_read_from(stream: str):
    model = task_model(stream, "QuestionAnswering", answer_reads="second_last_token")
    (best,) = pipeline_of(model).answer(["blue ring"], [IMAGES[0]])
    assert_ranked(best, by_hand(model, "blue ring [MASK]", IMAGES[0]).logits[0].sigmoid(), LABELS, "answer")


@pytest.mark.parametrize("fusion", ["early", "late", "hybrid"])
def test_classes(stream: str, fusion: str):
    model = task_model(stream, "SequenceClassification", fusion=fusion)
    pairs = [TEXTS[0], ("blue ring", "small dog"), *TEXTS[2:]]
    for text, image, best in zip(pairs, IMAGES, pipeline_of(model).classify(pairs, IMAGES), strict=True):
        assert_ranked(best, by_hand(model, text, image).logits[0].softmax(-1), LABELS, "label")
        assert len(best) == len(LABELS)


def test_classes_of_two_images(stream: str):
    model = task_model(stream, "ImagesAndTextClassification")
    others = IMAGES[::-1]
    found = pipeline_of(model).classify_pair(TEXTS, IMAGES, others)
    for text, first, second, best in zip(TEXTS, IMAGES, others, found, strict=True):
        batch = PROCESSOR(text=[text], return_tensors="pt")
        regions = PROCESSOR(images=[first, second], return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch, **{name: value[None] for name, value in regions.items()}).logits
        assert_ranked(best, logits[0].softmax(-1), LABELS, "label")


def test_choices_of_which_each_example_has_its_own_number(stream: str):
    model = task_model(stream, "MultipleChoice")
    choices = [TEXTS[:3], TEXTS[1:3], TEXTS[2:], TEXTS, TEXTS[3:]]
    found = pipeline_of(model).choose(TEXTS, choices, IMAGES)
    for text, given, image, best in zip(TEXTS, choices, IMAGES, found, strict=True):
        encoded = PROCESSOR(text=[(text, choice) for choice in given], padding=True, return_tensors="pt")
        regions = PROCESSOR(images=[image], return_tensors="pt")
        with torch.no_grad():
            logits = model(**{name: value[None] for name, value in encoded.items()}, **regions).logits
        assert_ranked(best, logits[0].softmax(-1), given, "choice")
        assert [given[each["index"]] for each in best] == [each["choice"] for each in best]
    assert_same(pipeline_of(model).choose(TEXTS[1], choices[1], IMAGES[1]), found[1])


@pytest.mark.parametrize("kind", ["retrieval", "pre-training"])
def test_matching_and_ranking(stream: str, kind: str):
    model = task_model(stream, "ImageAndTextRetrieval") if kind == "retrieval" else pretraining(stream)
    pipeline = pipeline_of(model)

    def score(text: str, image: Regions) -> float:
        output = by_hand(model, text, image)
        probability = output.logits.sigmoid() if kind == "retrieval" else output.itm_logits.softmax(-1)[:, 1]
        return probability.item()

    table = torch.tensor([[score(text, image) for image in IMAGES] for text in TEXTS])
    np.testing.assert_allclose(pipeline.match(TEXTS, IMAGES), table.diagonal(), atol=1e-5)
    for row, best in enumerate(pipeline.rank_images(TEXTS, IMAGES, top_k=3)):
        assert_ranked(best, table[row], range(5), "index")
        assert len(best) == 3
    assert_ranked(pipeline.rank_texts(IMAGES[1], TEXTS), table[:, 1], range(5), "index")
    np.testing.assert_allclose(pipeline.log_odds(TEXTS, IMAGES), table.diagonal().logit(), atol=1e-4)
    # One text goes with every image, one image with every text.
    np.testing.assert_allclose(pipeline.match(TEXTS[0], IMAGES), table[0], atol=1e-5)
    np.testing.assert_allclose(pipeline.match(TEXTS, IMAGES[2]), table[:, 2], atol=1e-5)


def test_probabilities_that_are_all_one_are_ranked_by_their_log_odds():
    model = task_model("single", "ImageAndTextRetrieval")
    before = pipeline_of(model).rank_images(TEXTS[0], IMAGES)
    with torch.no_grad():
        model.heads["matching"].bias[1] += 100.0
    after = pipeline_of(model).rank_images(TEXTS[0], IMAGES)
    assert [each["score"] for each in after] == [1.0] * 5
    assert [each["index"] for each in after] == [each["index"] for each in before]


@pytest.mark.parametrize("whole_image", [False, True])
def test_an_expression_means_a_region(stream: str, whole_image: bool):
    model = task_model(stream, "Grounding")
    processor = MmptProcessor(MmptImageProcessor(whole_image_region=whole_image), TOKENIZER)
    found = pipeline_of(model, processor).ground(TEXTS, IMAGES)
    for text, image, best in zip(TEXTS, IMAGES, found, strict=True):
        batch = processor(text=[text], images=[image], return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits[0, int(whole_image) :]
        if not len(image):
            assert best == []
            continue
        assert_ranked(best, logits.softmax(-1), range(len(image)), "region")
        for each in best:
            np.testing.assert_allclose(each["box"], image.boxes[each["region"]] * [100, 80, 100, 80], rtol=1e-5)


def test_phrases_of_a_caption_mean_regions(stream: str):
    model = task_model(stream, "RegionToPhraseAlignment")
    texts = ["a red star near a small dog", "blue ring", "star and star"]
    phrases = [["a red star", "a small dog"], ["blue ring"], [(9, 13), (0, 4), "and"]]
    last_tokens = [[3, 7], [2], [3, 1, 2]]  # behind [CLS], counted by hand
    found = pipeline_of(model).ground_phrases(texts, phrases, IMAGES[:3], top_k=2)
    for text, image, places, ranked in zip(texts, IMAGES, last_tokens, found, strict=False):
        logits = by_hand(model, text, image, phrase_positions=torch.tensor([places])).logits[0]
        assert len(ranked) == len(places)
        for scores, best in zip(logits, ranked, strict=True):
            assert_ranked(best, scores.softmax(-1), range(len(image)), "region")
            assert len(best) == min(2, len(image))
    single = pipeline_of(model).ground_phrases(texts[0], phrases[0], IMAGES[0], top_k=2)
    for alone, among_others in zip(single, found[0], strict=True):
        assert_same(alone, among_others)


@pytest.mark.parametrize(
    ("phrase", "error"),
    [
        ("dog", "has the phrase 'dog' 0 times"),
        ("star", "has the phrase 'star' 2 times"),
        ((4, 99), r"phrase \(4, 99\) is not in the 13 characters"),
        (" ", "has the phrase ' ' 2 times"),
        ((4, 5), r"phrase \(4, 5\) has no token among the first 32"),
    ],
)
def test_a_phrase_that_is_not_in_the_caption(phrase: Any, error: str):
    with pytest.raises(ValueError, match=error):
        pipeline_of(task_model("single", "RegionToPhraseAlignment")).ground_phrases(
            "star and star", [phrase], IMAGES[0]
        )


def test_embeddings(stream: str):
    model = task_model(stream, "ImageAndTextRetrieval")
    pipeline = pipeline_of(model)
    texts, images, pairs = (
        pipeline.embed_texts(TEXTS),
        pipeline.embed_images(IMAGES),
        pipeline.embed_pairs(TEXTS, IMAGES),
    )
    for row, (text, image) in enumerate(zip(TEXTS, IMAGES, strict=True)):
        with torch.no_grad():
            text_alone = model.embed_texts(**PROCESSOR(text=[text], return_tensors="pt"))[0]
            image_alone = model.embed_images(**PROCESSOR(images=[image], return_tensors="pt"))[0]
        torch.testing.assert_close(texts[row], text_alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(images[row], image_alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(pairs[row], by_hand(model.backbone, text, image).pooler_output[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(pipeline.embed_texts(text), texts[row], atol=1e-6, rtol=0)
    assert pipeline.embed_texts([]).numel() == 0


def test_a_backbone_embeds_pairs(stream: str):
    backbone = tiny_backbone(stream, **SMALL)
    found = pipeline_of(backbone).embed_pairs(TEXTS, IMAGES)
    expected = torch.cat([by_hand(backbone, *pair).pooler_output for pair in zip(TEXTS, IMAGES, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_one_batch_size_is_as_good_as_another(stream: str):
    model = task_model(stream, "SequenceClassification")
    one, many = (pipeline_of(model, batch_size=size).classify(TEXTS, IMAGES) for size in (1, 5))
    for few, all_at_once in zip(one, many, strict=True):
        assert_same(few, all_at_once)


@pytest.mark.parametrize(("task", "function"), [("QuestionAnswering", "answer"), ("Grounding", "ground")])
def test_a_saved_folder_is_loaded_with_its_class(stream: str, task: str, function: str, tmp_path: Path):
    model = task_model(stream, task)
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    pipeline = MmptPipeline.from_pretrained(tmp_path, device="cpu", batch_size=2)
    assert type(pipeline.model) is type(model)
    assert not pipeline.model.training
    found, expected = (getattr(each, function)(TEXTS[:4], IMAGES[:4]) for each in (pipeline, pipeline_of(model)))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, [{**each, "box": pytest.approx(each["box"])} if "box" in each else each for each in other])


def test_weights_of_half_the_precision_give_nearly_the_same(stream: str, tmp_path: Path):
    model = task_model(stream, "ImageAndTextRetrieval")
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    expected = pipeline_of(model).embed_pairs(TEXTS, IMAGES)
    for dtype in ("bfloat16", torch.float16):
        coarse = MmptPipeline.from_pretrained(tmp_path, device="cpu", dtype=dtype)
        found = coarse.embed_pairs(TEXTS, IMAGES)
        assert found.dtype == torch.float32
        assert 1e-5 < (found - expected).abs().max() < 0.1
        np.testing.assert_allclose(coarse.match(TEXTS, IMAGES), pipeline_of(model).match(TEXTS, IMAGES), atol=0.1)


def test_a_folder_without_what_is_needed(tmp_path: Path):
    model = task_model("single", "Grounding")
    model.config.architectures = ["BertModel"]
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="contains BertModel, expected one of MmptSingleStreamModel"):
        MmptPipeline.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="has no loadable processor next to its model"):
        MmptPipeline.from_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="has no loadable processor next to its model"):
        MmptPipeline.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        MmptPipeline.from_pretrained(tmp_path / "nowhere")


def test_a_model_in_training_mode_is_put_to_use():
    model = task_model("single", "Grounding").train()
    assert not pipeline_of(model).model.training


def test_every_function_says_which_model_has_it():
    pipeline = pipeline_of(task_model("single", "Grounding"))
    calls: dict[str, tuple[Any, ...]] = {
        "choose": ("a", ["b", "c"], IMAGES[0]),
        "classify_pair": ("a", IMAGES[0], IMAGES[1]),
        "ground_phrases": ("a", ["a"], IMAGES[0]),
        "rank_images": ("a", IMAGES),
        "rank_texts": (IMAGES[0], TEXTS),
        "embed_texts": ("a",),
        "embed_images": (IMAGES[0],),
    }
    for name in FUNCTIONS:
        if name == "ground":
            continue
        with pytest.raises(ValueError, match=rf"{name}\(\) needs Mmpt.*which has ground\(\);") as error:
            getattr(pipeline, name)(*calls.get(name, ("a", IMAGES[0])))
        wanted = str(error.value).split(" needs ")[1].split(", but")[0].split(" or ")
        assert wanted
        assert set(wanted) <= set(MODELS)


def test_a_pretraining_model_without_the_objective():
    pipeline = pipeline_of(pretraining("single", objective_weights={"mrfr": 1.0}))
    with pytest.raises(
        ValueError, match=r"fill_mask\(\) needs .* objective 'mlm', but this one was pre-trained with mrfr"
    ):
        pipeline.fill_mask("a [MASK]", IMAGES[0])
    with pytest.raises(ValueError, match=r"match\(\) needs .* objective 'itm', but this one was pre-trained with mrfr"):
        pipeline.match("a", IMAGES[0])


def test_wrong_inputs_are_errors():
    pipeline = pipeline_of(pretraining("single"))
    with pytest.raises(ValueError, match="got 5 for text and 2 for image, expected lists of equal length"):
        pipeline.match(TEXTS, IMAGES[:2])
    with pytest.raises(ValueError, match=r"'a dog' has no \[MASK\] among its first 32 tokens"):
        pipeline.fill_mask(["a [MASK]", "a dog"], IMAGES[0])
    with pytest.raises(ValueError, match="got 7 for a text, expected a string"):
        pipeline.match([7], IMAGES[0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="got Image for an image, expected Regions; for images and files give"):
        pipeline.match("a", Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match="7 numbers wide, the model expects region_feature_dim 6"):
        pipeline.match("a", random_regions(2, features=np.ones((2, 7), np.float32), image_id="wide"))
    with pytest.raises(ValueError, match="batch_size is 0"):
        pipeline_of(pipeline.model, batch_size=0)
    assert pipeline.match([], []) == []
    assert pipeline.rank_images("a", []) == []


def test_an_image_id_is_looked_up():
    model = pretraining("single")
    stored = {image.image_id: image for image in IMAGES}
    pipeline = pipeline_of(model, regions=stored)
    assert pipeline.match(TEXTS, list(stored)) == pipeline_of(model).match(TEXTS, IMAGES)
    with pytest.raises(
        ValueError, match=r"image 'image-9' is not among the regions \(5 images, 'image-0' is the first"
    ):
        pipeline.match("a", "image-9")


@pytest.mark.parametrize("backend", ["grid", "boxes"])
def test_a_picture_is_its_regions(backend: str, tmp_path: Path):
    encoder = tmp_path / "encoder"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=FEATURE,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
    )
    AutoModel.from_config(config).save_pretrained(encoder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(encoder)
    extractor = RegionExtractor.from_pretrained(encoder, backend=backend, device="cpu", batch_size=2)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]
    boxes = [random_regions(count, seed=count).boxes for count in (1, 2, 3)] if backend == "boxes" else None
    stored = extractor(pictures, boxes=boxes)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)

    def given(images: list[Any]) -> list[Any]:
        return images if boxes is None else list(zip(images, boxes, strict=True))

    pipeline = pipeline_of(pretraining("single"), extractor=extractor)
    expected = pipeline.match(TEXTS[:3], stored)
    for images in (pictures, paths, [str(path) for path in paths]):
        np.testing.assert_allclose(pipeline.match(TEXTS[:3], given(images)), expected, atol=1e-6)
    assert len({round(score, 6) for score in expected}) == 3
    with pytest.raises(ValueError, match=r"nowhere\.png: the image cannot be read"):
        pipeline.match("a", given([tmp_path / "nowhere.png", *paths[1:]])[0])
    if boxes is not None:
        with pytest.raises(ValueError, match="got no boxes, but the backend is 'boxes'"):
            pipeline.match("a", pictures[0])


def test_every_task_s_model_can_be_loaded():
    assert {model.__name__ for task in TASKS.values() for model in task.models.values()} <= set(MODELS)
