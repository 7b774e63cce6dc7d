"""What a model is given is right, or is refused with one clear error: the catalogue of odd inputs, and its edges."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpt.configuration.errors import MmptError, MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.input_checks import LIBRARY_INPUTS, checks_values
from tests.factories.models import CLASSES, STREAMS, tiny_backbone, tiny_batch, tiny_labels, tiny_pretraining
from tests.factories.odd_inputs import ALLOWED, KINDS, WRONG, good_batch, nothing_labelled, odd_model
from tests.factories.task_models import TASKS, task_batch, task_labels, tiny_task

PADDED = ("region_features", "region_boxes")


def finite(output: Any) -> bool:
    values = [value for value in vars(output).values() if isinstance(value, Tensor) and value.is_floating_point()]
    return all(value.isfinite().all() for value in values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", STREAMS)
def test_what_cannot_be_right_is_refused(stream: str, kind: str) -> None:
    model, found = odd_model(stream, kind), {}
    for (owner, name), change in WRONG.items():
        if owner != kind:
            continue
        try:
            model(**change(good_batch(kind)))
        except MmptError:
            continue
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = "accepted"
    assert not found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", STREAMS)
def test_what_is_unusual_and_right_works(stream: str, kind: str) -> None:
    model = odd_model(stream, kind)
    for (owner, name), change in ALLOWED.items():
        if owner == kind:
            assert finite(model(**change(good_batch(kind)))), name


def test_the_catalogue_is_large() -> None:
    assert len({name for _, name in WRONG}) >= 200
    assert len(WRONG) * len(STREAMS) >= 2000


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("visual_feats", "region_features"),
        ("visual_pos", "region_boxes"),
        ("visual_embeds", "region_features"),
        ("img_feats", "region_features"),
        ("image_loc", "region_boxes"),
        ("regions_attention_mask", "region_attention_mask"),
        ("input_mask", "attention_mask"),
        ("segment_ids", "token_type_ids"),
        ("mlm_label", "mlm_labels"),
        ("labels", "mlm_labels"),
        ("matched_label", "itm_labels"),
    ],
)
@pytest.mark.parametrize("stream", STREAMS)
def test_an_unknown_keyword_is_a_type_error_with_the_name_that_is_meant(stream: str, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"has no input '{name}'; did you mean '{meant}'"):
        tiny_pretraining(stream)(**tiny_batch(), **{name: torch.zeros(1)})


@pytest.mark.parametrize("kind", KINDS)
def test_keywords_of_transformers_are_taken(kind: str) -> None:
    flags = {name: None if name == "kernel_options" else False for name in LIBRARY_INPUTS if name != "return_dict"}
    odd_model("single", kind)(**good_batch(kind), **flags)


def test_flash_inputs_are_refused_by_attention_that_would_not_read_them() -> None:
    with pytest.raises(MmptTypeError, match="'cu_seq_lens_q' with flash attention only"):
        tiny_backbone("single")(**tiny_batch(), cu_seq_lens_q=torch.tensor([0, 5]))


@pytest.mark.parametrize("stream", STREAMS)
def test_errors_say_got_and_expected(stream: str) -> None:
    batch, model = tiny_batch() | tiny_labels(), tiny_pretraining(stream)
    for change, message in (
        ({"input_ids": batch["input_ids"] + 50}, r"input_ids run from \d+ to \d+, expected 0..49 \(vocab_size\)"),
        ({"region_boxes": batch["region_boxes"] * 640}, r"region_boxes run from .* divide pixels by the image's width"),
        ({"attention_mask": batch["attention_mask"][:, :4]}, r"\(3, 4\), expected \(batch, tokens\), here \(3, 5\)"),
        ({"mrc_kl_labels": batch["mrc_kl_labels"] * 2}, r"mrc_kl_labels"),
        ({"itm_labels": batch["itm_labels"].int()}, r"itm_labels are of torch.int32, expected .* use .long\(\)"),
        ({"mlm_labels": batch["mlm_labels"] * 2}, r"mlm_labels run from -?\d+ to"),
    ):
        with pytest.raises(MmptValueError, match=message):
            model(**batch | change)


def test_values_are_looked_at_once_for_each_module_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Accelerated:  # a tensor elsewhere; reading it would make the device wait
        device = torch.device("cuda")

    monkeypatch.setattr("mmpt.modeling_mmpt.input_checks._has_values", lambda tensor: True)
    first, second, away = torch.nn.Module(), torch.nn.Module(), Accelerated()
    assert [checks_values(first, "inputs", away) for _ in range(3)] == [True, False, False]
    assert checks_values(first, "labels", away)
    assert checks_values(second, "inputs", away)
    assert all(checks_values(first, "inputs", torch.zeros(1)) for _ in range(3))


def test_nothing_is_looked_at_on_meta_or_in_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = torch.nn.Module()
    assert not checks_values(module, "inputs", torch.zeros(1, device="meta"))
    with FakeTensorMode() as mode:
        assert not checks_values(module, "inputs", mode.from_tensor(torch.zeros(1)))


@pytest.mark.parametrize("stream", STREAMS)
def test_a_compiled_model_has_no_graph_break_from_checks(stream: str) -> None:
    model, batch = tiny_pretraining(stream, attention="sdpa"), tiny_batch()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch).itm_logits, model(**batch).itm_logits)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_batch_without_a_label_has_loss_and_gradients_of_zero(stream: str, task: str) -> None:
    for fields in ({}, {"label_smoothing": 0.1}, {"class_weights": [0.5, 1.0, 2.0]}, {"contrastive_size": 4}):
        if task == "MultipleChoice" and "class_weights" in fields:
            fields = {"class_weights": [0.5, 1.0, 2.0, 1.0]}
        model = tiny_task(stream, task, **fields)
        loss = model(**nothing_labelled(task)).loss
        loss.backward()
        assert loss.item() == 0
        assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("stream", STREAMS)
def test_pretraining_without_a_label_has_loss_zero(stream: str) -> None:
    model = odd_model(stream, "pretraining")
    model.zero_grad()
    loss = model(**nothing_labelled("pretraining")).loss
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("fusion", ["early", "late", "hybrid"])
def test_classes_of_weight_zero_have_loss_zero(fusion: str) -> None:
    model = tiny_task("single", "SequenceClassification", class_weights=[0.0, 1.0, 1.0], fusion=fusion)
    loss = model(**task_batch("SequenceClassification"), labels=torch.zeros(3, dtype=torch.long)).loss
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("fields", [{}, {"class_weights": [0.5, 1.0, 2.0]}, {"label_smoothing": 0.1}])
def test_the_loss_of_labelled_rows_is_their_mean(fields: dict[str, Any]) -> None:
    model, labels = tiny_task("single", "SequenceClassification", **fields), torch.tensor([2, -100, 0])
    output = model(**task_batch("SequenceClassification"), labels=labels)
    weight = torch.tensor(fields["class_weights"]) if "class_weights" in fields else None
    smoothing = fields.get("label_smoothing", 0.0)
    expected = torch.nn.functional.cross_entropy(output.logits, labels, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(output.loss, expected)


def test_an_unlabelled_question_is_no_part_of_the_mean() -> None:
    model, batch = tiny_task("single", "QuestionAnswering"), task_batch("QuestionAnswering")
    labels = task_labels("QuestionAnswering")
    labels[1] = -100
    both = model(**{name: value[[0, 2]] for name, value in batch.items()}, labels=labels[[0, 2]]).loss
    torch.testing.assert_close(model(**batch, labels=labels).loss, both)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("backbone", "late fusion")])
@pytest.mark.parametrize("stream", STREAMS)
def test_padding_of_any_number_changes_neither_loss_nor_gradients(stream: str, kind: str) -> None:
    model = odd_model(stream, kind)
    outcomes = []
    for value in (None, math.nan, math.inf):
        batch = good_batch(kind)
        unseen = ~batch["region_attention_mask"].bool()
        for name in PADDED if value is not None else ():
            batch[name] = batch[name].masked_fill(unseen[..., None], value)
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        outcomes.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    for loss, gradients in outcomes[1:]:
        torch.testing.assert_close(loss, outcomes[0][0])
        torch.testing.assert_close(gradients, outcomes[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stream", STREAMS)
def test_nan_in_a_masked_feature_goes_nowhere(stream: str) -> None:
    model, batch = odd_model(stream, "pretraining"), good_batch("pretraining")
    masked = batch["masked_regions"][..., None]
    zero = model(**batch | {"region_features": batch["region_features"].masked_fill(masked, 0)}).loss
    nan = model(**batch | {"region_features": batch["region_features"].masked_fill(masked, math.nan)}).loss
    torch.testing.assert_close(nan, zero)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_padding_on_the_left_changes_no_loss_and_no_pooled_vector(stream: str, attention: str) -> None:
    model, right = tiny_pretraining(stream, attention=attention), tiny_batch() | tiny_labels()
    left = dict(right)
    for row in range(3):
        shift = int((right["attention_mask"][row] == 0).sum())
        for name in ("input_ids", "attention_mask", "token_type_ids", "mlm_labels"):
            left[name] = left[name].clone()
            left[name][row] = right[name][row].roll(shift)
        shift = int((right["region_attention_mask"][row] == 0).sum())
        for name in right:
            if "region" in name or name.startswith("mr"):
                left[name] = left[name].clone()
                left[name][row] = right[name][row].roll(shift, 0)
    with torch.no_grad():
        expected, output = model(**right), model(**left)
        pooled = [model.backbone(**{k: b[k] for k in tiny_batch()}).pooler_output for b in (right, left)]
    # The regions' pooled vector is that of another region only where padding is not counted.
    for name in ("mlm_loss", "itm_loss", "mrfr_loss", "mrc_kl_loss"):
        torch.testing.assert_close(output[name], expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_task_embedding_stands_behind_the_first_token_of_a_text_padded_on_the_left(stream: str) -> None:
    model, batch = tiny_backbone(stream, num_task_tokens=2), tiny_batch()
    right = {name: batch[name][1:2] for name in batch}
    left = {name: value.roll(2, 1) if "region" not in name else value for name, value in right.items()}
    tasks = torch.tensor([1])
    expected = model(**right, task_ids=tasks).pooler_output
    # With padding on the left the task embedding comes at place 1, which attention does not mind.
    torch.testing.assert_close(model(**left, task_ids=tasks).pooler_output, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_random_wrong_inputs_work_or_raise_one_mmpt_error(data: st.DataObject) -> None:
    stream, kind = data.draw(st.sampled_from(STREAMS)), data.draw(st.sampled_from(KINDS))
    batch = good_batch(kind)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(batch)))
        batch[name] = data.draw(changed(batch[name]))
    try:
        output = odd_model(stream, kind)(**batch)
    except MmptError:
        return
    assert finite(output)


def changed(value: Any) -> st.SearchStrategy[Any]:
    """Return strategies for what may stand in place of a tensor."""
    if not isinstance(value, Tensor):
        return st.none()
    sizes = st.lists(st.integers(0, 6), min_size=0, max_size=4)
    numbers = st.sampled_from([-1e9, -100, -2, -1, -0.5, 0, 0.5, 1, 2, 7, 1e9, math.nan, math.inf])
    kinds = st.sampled_from([torch.long, torch.int, torch.bool, torch.float, torch.double, torch.half, torch.complex64])

    def write(number: float) -> Tensor:
        tensor = value.float().clone()
        tensor.flatten()[tensor.numel() // 2] = number
        return tensor if value.is_floating_point() or not math.isfinite(number) else tensor.to(value.dtype)

    return st.one_of(
        kinds.map(value.to),
        numbers.map(write),
        sizes.map(lambda shape: torch.zeros(shape, dtype=value.dtype)),
        st.sampled_from([value[None], value.flatten(), value.reshape(-1)[:1], value.flatten().flip(0)]),
        st.sampled_from([None, 0, "text", [1, 2], {}, value.tolist()]),
    )


def test_kl_labels_may_be_of_half_precision() -> None:
    labels = tiny_labels()
    kl = labels["mrc_kl_labels"].bfloat16()
    assert tiny_pretraining("single")(**tiny_batch(), mrc_kl_labels=kl).mrc_kl_loss.isfinite()
    assert kl.shape[-1] == CLASSES
