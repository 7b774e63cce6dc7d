"""PEFT on task models: it finds the head, saves it, merges it, and gives it back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.factories.models import tiny_batch
from tests.factories.task_models import tiny_task

peft = pytest.importorskip("peft")
CASES = [
    ("QuestionAnswering", "SEQ_CLS", "all-linear"),
    ("QuestionAnswering", "QUESTION_ANS", ["query", "value"]),
    ("QuestionAnswering", "FEATURE_EXTRACTION", "all-linear"),
    ("SequenceClassification", "SEQ_CLS", "all-linear"),
    ("SequenceClassification", "SEQ_CLS", ["query", "value"]),
]


@pytest.mark.parametrize(("task", "task_type", "targets"), CASES)
@pytest.mark.parametrize("fusion", ["early", "hybrid"])
def test_an_adapter_trains_saves_reloads_and_merges(
    tmp_path: Path, task: str, task_type: str, targets: list[str] | str, fusion: str
):
    base = tiny_task("single", task, fusion=fusion).eval()
    # PEFT's forward for QUESTION_ANS takes these two and does not hand them on.
    dropped = ("token_type_ids", "position_ids") if task_type == "QUESTION_ANS" else ()
    batch = {name: value for name, value in tiny_batch().items() if name not in dropped}
    count = len(batch["input_ids"])
    labels = torch.zeros(count, dtype=torch.long)
    if task == "QuestionAnswering":
        labels = torch.rand(count, base.num_classes)
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(task_type=task_type, target_modules=targets, r=2, lora_alpha=8)
    model = peft.get_peft_model(type(base).from_pretrained(tmp_path / "base"), config)
    model.print_trainable_parameters()
    head = [name for name, each in model.named_parameters() if each.requires_grad and "modules_to_save" in name]
    assert bool(head) == (task_type != "FEATURE_EXTRACTION")
    before = {name: each.clone() for name, each in model.named_parameters()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
    for _ in range(2):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert set(head) <= moved
    assert all("lora" in name or name in head for name in moved)
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model.eval()(**batch).logits
        assert not torch.allclose(expected, base(**batch).logits)
        again = peft.PeftModel.from_pretrained(type(base).from_pretrained(tmp_path / "base"), tmp_path / "adapter")
        torch.testing.assert_close(again.eval()(**batch).logits, expected, rtol=0, atol=0)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, expected, rtol=0, atol=1e-5)
        merged.save_pretrained(tmp_path / "merged")
        loaded = type(base).from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(loaded(**batch).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", ["QuestionAnswering", "SequenceClassification"])
def test_files_keep_the_names_of_the_first_version_and_either_name_loads(tmp_path: Path, task: str):
    model = tiny_task("dual", task)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    heads = {name for name in saved if not name.startswith("backbone.")}
    assert heads
    assert all(name.startswith("classifiers.joint.") for name in heads)
    assert set(model.saved_state_dict()) == set(saved)
    assert all(name.startswith("classifier.") for name in model.state_dict() if not name.startswith("backbone."))
    other = tiny_task("dual", task)
    for weights in (saved, model.state_dict()):
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter)
        other.load_state_dict(weights, strict=True)
        for name, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    assert other.classifiers["joint"] is other.get_submodule(f"{other.head_name}.joint")
