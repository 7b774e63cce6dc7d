"""A catalogue of odd inputs to `forward`: for every model and both streams, what cannot be right, and what is taken.

`python tests/factories/odd_inputs.py` counts the outcomes: an `MmptError`, a bare error, or silence.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from mmpt.configuration.errors import MmptError
from mmpt.modeling_mmpt.fusion import MmptLateFusion
from tests.factories.models import CLASSES, HIDDEN, STREAMS, VOCABULARY, tiny_backbone, tiny_batch, tiny_labels
from tests.factories.models import tiny_pretraining as _tiny_pretraining
from tests.factories.task_models import CHOICES, TASKS, task_batch, task_labels, tiny_task

Batch = dict[str, Any]
Change = Callable[[Batch], Batch]

OBJECTIVES = ("mlm", "mrc", "mrc_kl", "mrfr", "itm", "mrc_attribute", "qa")
KINDS = ("backbone", "pretraining", *TASKS, "late fusion")
NAN, INFINITY = float("nan"), float("inf")


@cache
def odd_model(stream: str, kind: str) -> Any:
    """Return a tiny model of a kind."""
    if kind == "backbone":
        return tiny_backbone(stream, region_type_embedding="own", num_task_tokens=2)
    if kind == "pretraining":
        return _tiny_pretraining(
            stream,
            objective_weights=dict.fromkeys(OBJECTIVES, 1.0),
            num_region_attributes=3,
            num_qa_labels=4,
            region_type_embedding="own",
            region_mask_embedding=True,
            confidence_weighted_classes=True,
        )
    if kind == "late fusion":
        return MmptLateFusion(*(tiny_task(stream, "SequenceClassification", fusion="late") for _ in range(2)))
    return tiny_task(stream, kind)


def good_batch(kind: str) -> Batch:
    """Return a batch that the model of a kind takes, with labels where it has some."""
    if kind == "backbone":
        return tiny_batch()
    if kind == "pretraining":
        labels = tiny_labels()
        masked = labels["masked_regions"]
        more = {
            "mrc_attribute_labels": torch.where(masked, 1, -100),
            "qa_labels": torch.tensor([0, -100, 3]),
            "region_scores": torch.full(masked.shape, 0.5),
        }
        return tiny_batch() | labels | more
    if kind == "late fusion":
        return tiny_batch()
    return task_batch(kind) | {"labels": task_labels(kind)}


def put(name: str, value: Any) -> Change:
    """Give an input this value, or what a function makes of its old one."""
    return lambda batch: batch | {name: value(batch[name]) if callable(value) else value}


def at(name: str, value: float, *place: int, dtype: torch.dtype | None = None) -> Change:
    """Write one number into an input."""

    def change(batch: Batch) -> Batch:
        tensor = batch[name].clone() if dtype is None else batch[name].to(dtype)
        tensor[(0,) * (tensor.dim() - len(place)) + place] = value
        return batch | {name: tensor}

    return change


def rename(name: str, other: str) -> Change:
    """Spell an input otherwise."""
    return lambda batch: {other if key == name else key: value for key, value in batch.items()}


def drop(*names: str) -> Change:
    """Leave inputs out."""
    return lambda batch: {key: value for key, value in batch.items() if key not in names}


def wrong_everywhere() -> Iterator[tuple[str, Change]]:
    """Yield what no model can take."""
    for name, other in (
        ("region_features", "visual_feats"),
        ("region_boxes", "visual_pos"),
        ("region_features", "visual_embeds"),
        ("region_attention_mask", "visual_attention_mask"),
        ("region_features", "image_feat"),
        ("region_boxes", "image_loc"),
        ("region_attention_mask", "image_attention_mask"),
        ("region_features", "img_feats"),
        ("attention_mask", "input_mask"),
        ("token_type_ids", "segment_ids"),
        ("region_attention_mask", "regions_attention_mask"),
        ("region_features", "region_feature"),
        ("attention_mask", "attention_masks"),
    ):
        yield f"{name} spelled {other}", rename(name, other)
    for name in ("mlm_label", "label", "foo", "pixel_values", "past_key_values", "output_attention"):
        yield f"unknown {name}", put(name, torch.zeros(1))
    yield "is_causal", put("is_causal", True)
    yield "flag of one stream", put("output_region_hidden_states", True)

    last = (..., slice(None, -1))
    for name in ("attention_mask", "token_type_ids"):
        yield f"{name} shorter", put(name, lambda v: v[last])
        yield f"{name} longer", put(name, lambda v: torch.cat([v, v[..., :1]], -1))
        yield f"{name} of another batch", put(name, lambda v: v[:-1])
        yield f"{name} of one row", put(name, lambda v: v.flatten(0, -2)[0])
        yield f"{name} as a list", put(name, lambda v: v.tolist())
    yield "attention_mask of 2", at("attention_mask", 2)
    yield "attention_mask of -1", at("attention_mask", -1)
    yield "attention_mask additive", put("attention_mask", lambda v: (1.0 - v.float()) * -1e4)
    yield "attention_mask additive infinite", put("attention_mask", lambda v: v.float().log())
    yield "attention_mask NaN", at("attention_mask", NAN, dtype=torch.float)
    yield "attention_mask complex", put("attention_mask", lambda v: v.to(torch.complex64))
    yield "attention_mask of four axes", put("attention_mask", lambda v: v[..., None, None, :])
    yield "token_type_ids high", at("token_type_ids", 2)
    yield "token_type_ids negative", at("token_type_ids", -1)
    yield "token_type_ids float", put("token_type_ids", lambda v: v.float())

    yield "input_ids high", at("input_ids", VOCABULARY)
    yield "input_ids negative", at("input_ids", -1)
    yield "input_ids -100", at("input_ids", -100)
    yield "input_ids float", put("input_ids", lambda v: v.float())
    yield "input_ids bool", put("input_ids", lambda v: v.bool())
    yield "input_ids of one axis", put("input_ids", lambda v: v.flatten())
    yield "input_ids with one more axis", put("input_ids", lambda v: v[..., None])
    yield "input_ids as a list", put("input_ids", lambda v: v.tolist())
    yield "input_ids as an array", put("input_ids", lambda v: v.numpy())
    yield "input_ids as a text", put("input_ids", "a red dog")
    yield "input_ids without tokens", put("input_ids", lambda v: v[..., :0])
    yield (
        "text without tokens",
        lambda b: b | {n: b[n][..., :0] for n in ("input_ids", "attention_mask", "token_type_ids")},
    )
    yield "batch without rows", lambda b: {name: value[:0] for name, value in b.items()}
    yield (
        "text of another batch",
        lambda b: b | {n: b[n][:2] for n in ("input_ids", "attention_mask", "token_type_ids")},
    )
    yield (
        "text longer than the positions",
        lambda b: b | {n: torch.cat([b[n], b[n]], -1) for n in ("input_ids", "attention_mask", "token_type_ids")},
    )
    yield "two texts", lambda b: b | {"inputs_embeds": torch.zeros(*b["input_ids"].shape, HIDDEN)}
    yield "inputs on two devices", put("region_features", lambda v: v.to("meta"))
    yield "text inputs without text", drop("input_ids")
    yield "region inputs without features", drop("region_features")

    def embeds(value: Callable[[torch.Tensor], torch.Tensor]) -> Change:
        return lambda b: drop("input_ids")(b | {"inputs_embeds": value(torch.zeros(*b["input_ids"].shape, HIDDEN))})

    yield "inputs_embeds too wide", embeds(lambda v: torch.cat([v, v[..., :1]], -1))
    yield "inputs_embeds NaN", embeds(lambda v: v.fill_(NAN))
    yield "inputs_embeds integer", embeds(lambda v: v.long())
    yield "inputs_embeds of one axis less", embeds(lambda v: v[..., 0])
    yield "inputs_embeds of one axis more", embeds(lambda v: v[..., None])

    positions: Callable[[Batch], torch.Tensor] = lambda b: torch.zeros_like(b["input_ids"])  # noqa: E731
    yield "position_ids high", lambda b: b | {"position_ids": positions(b) + 8}
    yield "position_ids negative", lambda b: b | {"position_ids": positions(b) - 1}
    yield "position_ids float", lambda b: b | {"position_ids": positions(b).float()}
    yield "position_ids shorter", lambda b: b | {"position_ids": positions(b)[..., :-1]}
    yield "position_ids of another batch", lambda b: b | {"position_ids": positions(b)[:2]}
    yield "task_ids high", put("task_ids", torch.full((3,), 2))
    yield "task_ids negative", put("task_ids", torch.full((3,), -1))
    yield "task_ids float", put("task_ids", torch.zeros(3))
    yield "task_ids a number", put("task_ids", 1)
    yield "task_ids of two axes", put("task_ids", torch.zeros(3, 1, dtype=torch.long))

    features = "region_features"
    yield f"{features} too wide", put(features, lambda v: torch.cat([v, v], -1))
    yield f"{features} too narrow", put(features, lambda v: v[last])
    yield f"{features} of one axis less", put(features, lambda v: v[0])
    yield f"{features} of one axis more", put(features, lambda v: v[:, None, None])
    yield f"{features} NaN", at(features, NAN, 1, 0)
    yield f"{features} infinite", at(features, -INFINITY, 1, 0)
    yield f"{features} bool", put(features, lambda v: v > 0)
    yield f"{features} complex", put(features, lambda v: v.to(torch.complex64))
    yield f"{features} as a list", put(features, lambda v: v.tolist())
    yield f"{features} of another batch", put(features, lambda v: v[:2])
    yield f"{features} with fewer regions", put(features, lambda v: v[..., :-1, :])
    yield (
        "no regions",
        lambda b: (
            b
            | {n: b[n][..., :0, :] for n in (features, "region_boxes")}
            | {n: b[n][..., :0] for n in b if n.endswith("region_attention_mask")}
        ),
    )
    yield "regions of another batch", lambda b: b | {n: v[:2] for n, v in b.items() if n.startswith("region_")}

    boxes = "region_boxes"
    yield f"{boxes} missing", drop(boxes)
    yield f"{boxes} in pixels", put(boxes, lambda v: v * 640)
    yield f"{boxes} in thousandths", put(boxes, lambda v: (v * 1000).long())
    yield f"{boxes} negative", at(boxes, -0.5)
    yield f"{boxes} NaN", at(boxes, NAN)
    yield f"{boxes} infinite", at(boxes, INFINITY, 2)
    yield f"{boxes} inverted", put(boxes, lambda v: v[..., [2, 3, 0, 1]])
    yield f"{boxes} as width and height", put(boxes, lambda v: v * 0 + torch.tensor([0.6, 0.6, 0.2, 0.2]))
    yield f"{boxes} with the area", put(boxes, lambda v: torch.cat([v, v[..., :1]], -1))
    yield f"{boxes} of three numbers", put(boxes, lambda v: v[last])
    yield f"{boxes} of another batch", put(boxes, lambda v: v[:2])
    yield f"{boxes} of fewer regions", put(boxes, lambda v: v[..., :-1, :])
    yield f"{boxes} of one axis less", put(boxes, lambda v: v[0])
    yield f"{boxes} bool", put(boxes, lambda v: v > 2)
    yield f"{boxes} as a list", put(boxes, lambda v: v.tolist())

    mask = "region_attention_mask"
    yield f"{mask} shorter", put(mask, lambda v: v[last])
    yield f"{mask} longer", put(mask, lambda v: torch.cat([v, v[..., :1]], -1))
    yield f"{mask} of another batch", put(mask, lambda v: v[:2])
    yield f"{mask} of 2", at(mask, 2)
    yield f"{mask} of -1", at(mask, -1)
    yield f"{mask} of shares", put(mask, lambda v: v * 0.5)
    yield f"{mask} additive", put(mask, lambda v: (1.0 - v.float()) * -1e4)
    yield f"{mask} NaN", at(mask, NAN, dtype=torch.float)
    yield f"{mask} with one more axis", put(mask, lambda v: v[..., None])
    yield f"{mask} as a list", put(mask, lambda v: v.tolist())

    types: Callable[[Batch], torch.Tensor] = lambda b: torch.zeros_like(b[mask])  # noqa: E731
    yield "region_type_ids high", lambda b: b | {"region_type_ids": types(b) + 2}
    yield "region_type_ids negative", lambda b: b | {"region_type_ids": types(b) - 1}
    yield "region_type_ids float", lambda b: b | {"region_type_ids": types(b).float()}
    yield "region_type_ids shorter", lambda b: b | {"region_type_ids": types(b)[last]}
    yield "region_type_ids of another batch", lambda b: b | {"region_type_ids": types(b)[:2]}
    yield "masked_regions shorter", lambda b: b | {"masked_regions": types(b)[last].bool()}
    yield "masked_regions of another batch", lambda b: b | {"masked_regions": types(b)[:2].bool()}
    yield "masked_regions float", lambda b: b | {"masked_regions": types(b).float()}
    yield "masked_regions with one more axis", lambda b: b | {"masked_regions": types(b)[..., None].bool()}


def class_number_faults(name: str, classes: int) -> Iterator[tuple[str, Change]]:
    """Yield what class numbers cannot be."""
    yield f"{name} high", at(name, classes)
    yield f"{name} -1", at(name, -1)
    yield f"{name} -99", at(name, -99)
    yield f"{name} int32", put(name, lambda v: v.int())
    yield f"{name} float", put(name, lambda v: v.float())
    yield f"{name} bool", put(name, lambda v: v > 0)
    yield f"{name} shorter", put(name, lambda v: v[..., :-1])
    yield f"{name} of another batch", put(name, lambda v: v[:2])
    yield f"{name} with one more axis", put(name, lambda v: v[..., None])
    yield f"{name} as a list", put(name, lambda v: v.tolist())


def vector_faults(name: str) -> Iterator[tuple[str, Change]]:
    """Yield what vectors as labels cannot be."""
    yield f"{name} too wide", put(name, lambda v: torch.cat([v, v], -1))
    yield f"{name} too narrow", put(name, lambda v: v[..., :-1])
    yield f"{name} NaN", at(name, NAN)
    yield f"{name} infinite", at(name, INFINITY)
    yield f"{name} integer", put(name, lambda v: v.long())
    yield f"{name} of another batch", put(name, lambda v: v[:2])
    yield f"{name} of one axis less", put(name, lambda v: v[..., 0])


def wrong_labels(kind: str) -> Iterator[tuple[str, Change]]:
    """Yield what labels and further inputs of a kind cannot be."""
    if kind == "pretraining":
        sizes = {"mlm": VOCABULARY, "mrc": CLASSES, "itm": 2, "mrc_attribute": 3, "qa": 4}
        for objective, size in sizes.items():
            yield from class_number_faults(f"{objective}_labels", size)
        for objective in ("mrc_kl", "mrfr"):
            yield from vector_faults(f"{objective}_labels")
        kl = "mrc_kl_labels"
        yield f"{kl} sums to 2", put(kl, lambda v: torch.where(v >= 0, 2 * v, v))
        yield f"{kl} zero", put(kl, lambda v: torch.where(v >= 0, 0 * v, v))
        yield f"{kl} negative", put(kl, lambda v: torch.where(v >= 0, torch.tensor([2.0, -1.0, 0, 0, 0, 0, 0]), v))
        yield f"{kl} are class numbers", put(kl, lambda v: v.argmax(-1))
        yield "mlm_labels without text", drop("input_ids", "attention_mask", "token_type_ids")
        yield (
            "region labels without regions",
            drop("region_features", "region_boxes", "region_attention_mask", "masked_regions", "region_scores"),
        )
        yield "labels of a task", put("labels", torch.zeros(3, dtype=torch.long))
        scores = "region_scores"
        yield f"{scores} shorter", put(scores, lambda v: v[..., :-1])
        yield f"{scores} above 1", at(scores, 1.5)
        yield f"{scores} negative", at(scores, -0.5)
        yield f"{scores} NaN", at(scores, NAN)
        yield f"{scores} integer", put(scores, lambda v: v.long())
        counts = {name: torch.tensor(3) for name in OBJECTIVES}
        yield "loss_denominators without one", put("loss_denominators", {"mlm": torch.tensor(3)})
        yield "loss_denominators of another", put("loss_denominators", counts | {"mml": torch.tensor(3)})
        yield "loss_denominators negative", put("loss_denominators", counts | {"mlm": torch.tensor(-3)})
        yield "loss_denominators NaN", put("loss_denominators", counts | {"mlm": torch.tensor(NAN)})
        yield "loss_denominators a number", put("loss_denominators", 3)
        yield "read_tokens", put("read_tokens", torch.ones(3, 5, dtype=torch.bool))
    elif kind == "backbone":
        yield "labels to a backbone", put("labels", torch.zeros(3, dtype=torch.long))
        yield "mlm_labels to a backbone", put("mlm_labels", tiny_labels()["mlm_labels"])
        yield "reads something else", put("reads", "some")
        yield "late a text", put("late", "yes")
    elif kind in TASKS:
        yield "late", put("late", True)
        yield "read_regions", put("read_regions", torch.ones(3, 4, dtype=torch.bool))
        yield "labels of an objective", put("itm_labels", torch.zeros(3, dtype=torch.long))
        yield (
            "phrases of another task" if kind != "RegionToPhraseAlignment" else "labels of another task",
            (
                put("phrase_positions", torch.ones(3, 2, dtype=torch.long))
                if kind != "RegionToPhraseAlignment"
                else put("labels", torch.zeros(3, dtype=torch.long))
            ),
        )
        yield from _wrong_task_labels(kind)


def _wrong_task_labels(kind: str) -> Iterator[tuple[str, Change]]:
    if kind in ("SequenceClassification", "ImagesAndTextClassification", "MultipleChoice"):
        yield from class_number_faults("labels", CHOICES if kind == "MultipleChoice" else 3)
        yield "labels one-hot", put("labels", torch.eye(3))
    if kind == "ImageAndTextRetrieval":
        for name, change in class_number_faults("labels", 3):
            if name != "labels high":
                yield name, change
        yield "labels partly -100", at("labels", -100)
    if kind in ("QuestionAnswering", "Grounding", "RegionToPhraseAlignment"):
        yield from vector_faults("labels")
        yield "labels above 1", at("labels", 1.5)
        yield "labels negative", at("labels", -0.5)
        if kind != "QuestionAnswering":
            yield "labels in padding", put("region_attention_mask", lambda v: v * 0)
    if kind == "ImagesAndTextClassification":
        for count in (1, 3):
            yield (
                f"{count} images",
                lambda b, count=count: {
                    n: torch.cat([v, v], 1)[:, :count] if n.startswith("region_") else v for n, v in b.items()
                },
            )
        yield "images without their axis", lambda b: {n: v[:, 0] if "region" in n else v for n, v in b.items()}
    if kind == "MultipleChoice":
        yield (
            "texts without choices",
            lambda b: {n: v if "region" in n or n == "labels" else v[:, 0] for n, v in b.items()},
        )
        yield "choices of another number", put("attention_mask", lambda v: v[:, :2])
    if kind == "RegionToPhraseAlignment":
        name = "phrase_positions"
        yield f"{name} missing", drop(name)
        yield f"{name} behind the text", at(name, 5)
        yield f"{name} -1", at(name, -1)
        yield f"{name} float", put(name, lambda v: v.float())
        yield f"{name} of another batch", put(name, lambda v: v[:2])
        yield f"{name} of one axis", put(name, lambda v: v[:, 0])
        yield "labels sum to 2", put("labels", lambda v: torch.where(v >= 0, 2 * v, v))


def allowed() -> Iterator[tuple[str, Change]]:
    """Yield what is arguable or unusual, and taken."""
    yield "unchanged", lambda b: b
    yield "region_features integer", put("region_features", lambda v: v.long())
    yield "region_features float64", put("region_features", lambda v: v.double())
    yield "region_features half", put("region_features", lambda v: v.half())
    yield "region_boxes float64", put("region_boxes", lambda v: v.double())
    yield "region_boxes a little outside", put("region_boxes", lambda v: v * 1.005)
    yield (
        "region_boxes whole images as integers",
        put("region_boxes", lambda v: torch.tensor([0, 0, 1, 1]).expand(v.shape)),
    )
    yield "attention_mask float", put("attention_mask", lambda v: v.float())
    yield "attention_mask bool", put("attention_mask", lambda v: v.bool())
    yield "attention_mask with a hole", at("attention_mask", 0, 2)
    yield "attention_mask without a token", put("attention_mask", lambda v: torch.zeros_like(v))
    yield "attention_mask left", put("attention_mask", lambda v: v.flip(-1))
    yield "region_attention_mask float", put("region_attention_mask", lambda v: v.float())
    yield "region_attention_mask left", put("region_attention_mask", lambda v: v.flip(-1))
    yield "region_attention_mask without a region", put("region_attention_mask", lambda v: torch.zeros_like(v))
    yield "input_ids int32", put("input_ids", lambda v: v.int())
    yield "masks left out", lambda b: {n: v for n, v in b.items() if not n.endswith("attention_mask")}
    yield "an input None", put("position_ids", None)
    yield "a flag of transformers", put("use_cache", False)
    yield "num_items_in_batch", put("num_items_in_batch", torch.tensor(3))
    for name in ("region_features", "region_boxes"):
        for value in (NAN, INFINITY):

            def fill(batch: Batch, name: str = name, value: float = value) -> Batch:
                unseen = ~batch["region_attention_mask"].bool()
                return batch | {name: batch[name].masked_fill(unseen[..., None], value)}

            yield f"{name} {value} in padding", fill


def nothing_labelled(kind: str) -> Batch:
    """Return the batch with labels that predict nothing."""
    batch = good_batch(kind)
    return {n: torch.full_like(v, -100) if n.endswith("labels") else v for n, v in batch.items()}


WRONG: dict[tuple[str, str], Change] = {
    (kind, name): change
    for kind in KINDS
    for make in (lambda _: wrong_everywhere(), wrong_labels)
    for name, change in make(kind)
}
_LABELLED_REGIONS = ("region_attention_mask left", "region_attention_mask without a region")
"""Their labels would lie in padding where a label is of a region."""
ALLOWED: dict[tuple[str, str], Change] = {
    (kind, name): change
    for kind in KINDS
    for name, change in allowed()
    if not (kind in ("Grounding", "RegionToPhraseAlignment") and name in _LABELLED_REGIONS)
}


def outcome(stream: str, kind: str, change: Change) -> str:
    """Return "silent", "clear", or the name of the bare error that a forward pass ends with."""
    try:
        odd_model(stream, kind)(**change(good_batch(kind)))
    except MmptError:
        return "clear"
    except Exception as error:
        return type(error).__name__
    return "silent"


def main() -> None:
    """Print the counts."""
    seen = {(stream, *case): outcome(stream, case[0], change) for stream in STREAMS for case, change in WRONG.items()}
    counts = Counter(result if result in ("silent", "clear") else "bare error" for result in seen.values())
    for case, result in seen.items():
        if result != "clear":
            print(*case, result, sep=" | ")
    taken = Counter(outcome(stream, case[0], change) for stream in STREAMS for case, change in ALLOWED.items())
    print(f"{len({name for _, name in WRONG})} kinds, {len(seen)} wrong inputs: {dict(counts)}")
    print(f"{sum(taken.values())} unusual inputs that are right: {dict(taken)}")


if __name__ == "__main__":
    main()
