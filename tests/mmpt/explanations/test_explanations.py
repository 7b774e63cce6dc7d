"""Explanations against the model called by hand, and relevance against the equations of its paper in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmpt import MmptPipeline, explain
from mmpt.explanations.attention import attend
from mmpt.explanations.explanation import Explanation
from mmpt.explanations.figures import (
    draw_attention,
    draw_explanation,
    draw_grounding,
    draw_masked_regions,
    draw_ranking,
)
from mmpt.explanations.files import write_explanation
from mmpt.explanations.word_examples import mask_a_word, word_examples
from mmpt.inference.model_functions import MODELS
from mmpt.inference.region_picture import find_font
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pairs.dataset import PairDataset
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.regions import Regions
from tests.factories.examples import CLASSES, TOKENIZER, random_regions
from tests.factories.models import STREAMS, tiny_config, tiny_pretraining

PROCESSOR = MmptProcessor(MmptImageProcessor(), TOKENIZER)
LABELS = {0: "no", 1: "perhaps", 2: "yes"}
SMALL: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "max_position_embeddings": 32,
    "region_type_embedding": "own",
    "id2label": LABELS,
    "num_region_classes": CLASSES,
    "region_background_class": None,
}
REGIONS = random_regions(3, seed=1, image_id="image", width=100, height=80)
TEXT = "a red [MASK] above a small dog"


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


def pretrained(stream: str) -> MmptPipeline:
    return MmptPipeline(tiny_pretraining(stream, **SMALL), PROCESSOR)


def of_task(stream: str, task: str, **fields: Any) -> MmptPipeline:
    torch.manual_seed(0)
    model: Any = MODELS[f"Mmpt{stream.capitalize()}StreamFor{task}"](tiny_config(stream, **SMALL | fields))
    return MmptPipeline(model, PROCESSOR)


def zeroed(*numbers: int) -> Regions:
    features = REGIONS.features.copy()
    features[list(numbers)] = 0
    return Regions(**{**vars(REGIONS), "features": features})


def test_ablation_is_the_answer_with_a_region_zeroed(stream: str) -> None:
    pipeline = pretrained(stream)
    found = explain(pipeline, TEXT, REGIONS)
    best = pipeline.fill_mask(TEXT, REGIONS, top_k=5)[0]
    assert found.function == "fill_mask"
    assert [name for name, _ in found.answers] == [each["token_str"] for each in best]
    assert [score for _, score in found.answers] == pytest.approx([each["score"] for each in best], abs=1e-6)

    def of_the_first(regions: Regions) -> float:
        every = pipeline.fill_mask(TEXT, regions, top_k=len(TOKENIZER))[0]
        return next(each["score"] for each in every if each["token"] == best[0]["token"])

    by_hand = [of_the_first(zeroed(number)) for number in range(3)]
    np.testing.assert_allclose(found.ablated, by_hand, atol=1e-6)
    assert found.decisive == int(np.argmin(by_hand))
    assert found.ablated_all == pytest.approx(of_the_first(zeroed(0, 1, 2)), abs=1e-6)


def test_matching_is_explained_where_the_text_has_no_mask(stream: str) -> None:
    pipeline = pretrained(stream)
    found = explain(pipeline, "a red dog", REGIONS)
    assert found.function == "match"
    assert dict(found.answers)["matched"] == pytest.approx(pipeline.match("a red dog", REGIONS), abs=1e-6)


def test_attention_is_that_of_the_eager_model_and_the_model_is_as_before(stream: str) -> None:
    pipeline = pretrained(stream)
    pipeline.model.set_attn_implementation("sdpa")
    found = explain(pipeline, TEXT, REGIONS).attention
    assert pipeline.model.config._attn_implementation == "sdpa"
    pipeline.model.set_attn_implementation("eager")
    batch = PROCESSOR(text=[TEXT], images=[REGIONS], return_tensors="pt")
    with torch.no_grad():
        output = pipeline.model(**batch, output_attentions=True)
    for name in ("text_to_region", "region_to_text"):
        expected = torch.cat(getattr(output, f"{name}_attentions"))
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-6)


def relevance_by_the_paper(pipeline: MmptPipeline, token: int, choice: int) -> np.ndarray:
    """Equations 5 to 11 of Chefer et al. 2021, in NumPy, for the row of one token."""
    model: Any = pipeline.model
    model.set_attn_implementation("eager")
    output = model(**PROCESSOR(text=[TEXT], images=[REGIONS], return_tensors="pt"), output_attentions=True)
    score = output.mlm_logits[0, token, choice]

    def mean(weights: Any) -> list[np.ndarray]:
        found = torch.autograd.grad(score, weights, allow_unused=True, retain_graph=True)
        pairs = [(w, torch.zeros_like(w) if g is None else g) for w, g in zip(weights, found, strict=True)]
        return [np.maximum((w * g)[0].detach().numpy(), 0).mean(0) for w, g in pairs]

    if hasattr(model.config, "region_num_hidden_layers"):
        t, r, tr, rt = (
            mean(getattr(output, f"{name}_attentions"))
            for name in ("text", "region", "text_to_region", "region_to_text")
        )
        tt, rr = np.eye(t[0].shape[0]), np.eye(r[0].shape[0])
        t_r, r_t = np.zeros((len(tt), len(rr))), np.zeros((len(rr), len(tt)))

        def themselves(texts: list[np.ndarray], regions: list[np.ndarray]) -> None:
            nonlocal tt, rr, t_r, r_t
            for a in texts:
                tt, t_r = tt + a @ tt, t_r + a @ t_r
            for a in regions:
                rr, r_t = rr + a @ rr, r_t + a @ r_t

        def bar(matrix: np.ndarray) -> np.ndarray:
            own = np.eye(len(matrix))
            sums = (matrix - own).sum(1, keepdims=True)
            return np.divide(matrix - own, sums, out=np.zeros_like(matrix), where=sums != 0) + own

        done = (0, 0)
        config = model.config
        for n, stop in enumerate(zip(config.text_co_attention_layers, config.region_co_attention_layers, strict=True)):
            themselves(t[done[0] : stop[0]], r[done[1] : stop[1]])
            done = stop
            text_bar, region_bar = bar(tt), bar(rr)
            old_tr, old_rt = t_r, r_t
            t_r, r_t = old_tr + text_bar.T @ tr[n] @ region_bar, old_rt + region_bar.T @ rt[n] @ text_bar
            tt, rr = tt + tr[n] @ old_rt, rr + rt[n] @ old_tr
        themselves(t[done[0] :], r[done[1] :])
        return np.concatenate([tt[token], t_r[token]])
    joint = np.eye(output.attentions[0].shape[-1])
    for a in mean(output.attentions):
        joint = joint + a @ joint
    return joint[token]


def test_relevance_is_that_of_the_paper(stream: str) -> None:
    pipeline = pretrained(stream)
    token = TOKENIZER(TEXT)["input_ids"].index(TOKENIZER.mask_token_id)
    choice = pipeline.fill_mask(TEXT, REGIONS, top_k=1)[0][0]["token"]
    found = explain(pipeline, TEXT, REGIONS).attention
    expected = relevance_by_the_paper(pipeline, token, choice)
    got = np.concatenate([found.relevance_of_tokens, found.relevance_of_regions])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert found.relevance_of_regions.max() > 0


def test_masked_regions_have_the_losses_of_the_model(stream: str) -> None:
    pipeline = pretrained(stream)
    found = explain(pipeline, "a red dog", REGIONS).masked_regions
    batch = PROCESSOR(text=["a red dog"], images=[zeroed(1)], return_tensors="pt")
    batch["masked_regions"] = torch.tensor([[False, True, False]])
    probs, features = torch.full((1, 3, CLASSES), -100.0), torch.full((1, 3, REGIONS.feature_dim), -100.0)
    probs[0, 1] = torch.from_numpy(REGIONS.class_probs[1])  # type: ignore[index]
    features[0, 1] = torch.from_numpy(REGIONS.features[1])
    with torch.no_grad():
        output = pipeline.model(**batch, mrc_kl_labels=probs, mrfr_labels=features)
    assert found[1].kl == pytest.approx(float(output.mrc_kl_loss), abs=1e-5)
    assert found[1].squared_error == pytest.approx(float(output.mrfr_loss), abs=1e-5)
    assert found[1].cosine == pytest.approx(float(output.mrfr_cosine), abs=1e-5)
    assert found[1].detector is not None
    assert found[1].detector[0][0] == REGIONS.class_probs[1].argmax()  # type: ignore[index]


@pytest.mark.parametrize("fusion", ["late", "hybrid"])
def test_late_and_hybrid_fusion_say_what_each_modality_says(stream: str, fusion: str) -> None:
    found = explain(of_task(stream, "QuestionAnswering", fusion=fusion), "a red dog", REGIONS)
    assert set(found.decisions) == {"text", "regions", *(["both"] if fusion == "hybrid" else [])}
    assert sum(weight for _, weight in found.decisions.values()) == pytest.approx(1)
    assert draw_explanation(found).height > draw_explanation(explain(pretrained(stream), TEXT, REGIONS)).height
    if fusion == "late":  # nothing of the text depends on a region, nor the other way round
        blind = explain(of_task(stream, "QuestionAnswering", fusion=fusion), "a red dog", zeroed(0))
        assert found.decisions["text"] == blind.decisions["text"]


@pytest.mark.parametrize("task", ["SequenceClassification", "Grounding", "ImageAndTextRetrieval"])
def test_other_tasks_are_explained(stream: str, task: str) -> None:
    pipeline = of_task(stream, task)
    found = explain(pipeline, "a red dog", REGIONS)
    expected = {"SequenceClassification": "classify", "Grounding": "ground", "ImageAndTextRetrieval": "match"}
    assert found.function == expected[task]
    if task == "Grounding":
        best = pipeline.ground("a red dog", REGIONS)
        assert found.answers[0] == (f"region {best[0]['region']}", pytest.approx(best[0]["score"], abs=1e-6))
        assert found.attention.relevance_of_regions[best[0]["region"]] >= 1
        assert draw_grounding(best, REGIONS, "a red dog").size[0] > 300
    assert found.masked_regions == []


def test_what_cannot_be_explained_is_an_error() -> None:
    with pytest.raises(ValueError, match="MmptSingleStreamForMultipleChoice cannot be explained"):
        explain(of_task("single", "MultipleChoice"), "a dog", REGIONS)
    with pytest.raises(ValueError, match="mask is 1, expected 0 to 0"):
        explain(pretrained("single"), TEXT, REGIONS, mask=1)
    with pytest.raises(ValueError, match="has no region"):
        explain(pretrained("single"), TEXT, random_regions(0, image_id="none", width=9, height=9))
    with pytest.raises(ValueError, match="predicts no masked region"):
        draw_masked_regions(explain(of_task("single", "SequenceClassification"), "a dog", REGIONS))
    late = explain(of_task("dual", "SequenceClassification", fusion="late"), "a dog", REGIONS)
    with pytest.raises(ValueError, match="words do not attend to regions"):
        draw_attention(late)


def test_files_of_an_explanation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: Explanation = explain(pretrained("dual"), "狗 costs $5 or $6 [MASK]", REGIONS)
    image = Image.new("RGB", (100, 80), (200, 220, 240))
    names = [path.name for path in write_explanation(found, tmp_path / "why", image)]
    assert names == ["answer.png", "relevance.png", "attention.png", "masked_regions.png", "explanation.json"]
    found_font = not find_font("狗")[1]
    assert ("no font at hand has '狗'" in caplog.text) != found_font
    for name in names[:-1]:
        with Image.open(tmp_path / "why" / name) as picture:
            colours = picture.convert("RGB").getcolors(10**6)
            assert colours is not None
            assert len(colours) > 20, name
    written = json.loads((tmp_path / "why" / "explanation.json").read_text())
    assert written["ablation"]["without_each_region"] == found.ablated.tolist()
    assert "Chefer" in written["relevance"]["method"]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        list(write_explanation(found, tmp_path / "file"))
    with pytest.raises(ValueError, match="the given image has 9 x 9"):
        draw_explanation(found, Image.new("RGB", (9, 9)))


def test_a_ranking_is_drawn_as_a_grid() -> None:
    pictures = [Image.new("RGB", (40, 30), (20 * n, 90, 90)) for n in range(5)]
    one, many = draw_ranking("a dog", pictures[:1], [0.9]), draw_ranking("a dog", pictures, [0.9] * 5, [True] * 5)
    assert many.height > one.height
    assert (0, 158, 115) in {colour for _, colour in many.getcolors(10**6)}  # type: ignore[union-attr]


def test_words_are_ordered_by_the_probability_of_the_right_one() -> None:
    pipeline = pretrained("single")
    pairs = {"text": ["red star near dog", "a blue ring", "small green dog"], "image_id": ["image"] * 3}
    table = PairDataset(pairs, {"image": REGIONS}, for_evaluation=True)
    assert mask_a_word("red star near dog", "[MASK]", {"star": "shape"}) == ("red [MASK] near dog", "star")
    found = word_examples(pipeline, table, {"star": "shape"}, rows=3)
    assert [each.word for each in found] != []
    assert [each.probability for each in found] == sorted(each.probability for each in found)
    for each in found:
        every = pipeline.fill_mask(each.text, REGIONS, top_k=len(TOKENIZER))[0]
        (expected,) = [row["score"] for row in every if row["token_str"] == each.word]
        assert each.probability == pytest.approx(expected, abs=1e-6)


def test_frozen_models_are_explained() -> None:
    pipeline = pretrained("single")
    batch = dict(PROCESSOR(text=[TEXT], images=[REGIONS], return_tensors="pt"))
    open_model = attend(pipeline.model, batch, lambda output: output.mlm_logits[0, 3, 7], 3, None)
    pipeline.model.requires_grad_(False)
    frozen = attend(pipeline.model, batch, lambda output: output.mlm_logits[0, 3, 7], 3, None)
    np.testing.assert_allclose(frozen.relevance_of_tokens, open_model.relevance_of_tokens, atol=1e-6)
