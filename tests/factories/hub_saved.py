"""One tiny trained model of every public class, with a batch for it; and two converted predecessors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LxmertConfig, LxmertForPreTraining

from mmpt import from_predecessor
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch, tiny_labels, tiny_pretraining
from tests.factories.paths import GOLDEN
from tests.factories.task_models import CASES, task_batch, task_labels, tiny_task


class Saved(NamedTuple):
    """A trained model, the name that it is pushed under, a batch, and the Auto classes that must load it."""

    name: str
    model: Any
    batch: dict[str, Tensor]
    auto: str


def every_class() -> Iterator[Saved]:
    """Yield each class, trained for a few steps."""
    for stream in STREAMS:
        # As a loaded model will attend.
        backbone = tiny_backbone(stream, attention="sdpa")
        yield _trained(Saved(f"{stream}-backbone", backbone, tiny_batch(), "AutoModel"), {})
        model = tiny_pretraining(stream, attention="sdpa")
        yield _trained(Saved(f"{stream}-pretraining", model, tiny_batch(), "AutoModelForPreTraining"), tiny_labels())
    auto = {
        "QuestionAnswering": "AutoModelForVisualQuestionAnswering",
        "SequenceClassification": "AutoModelForSequenceClassification",
        "MultipleChoice": "AutoModelForMultipleChoice",
    }
    for stream, task in CASES:
        saved = Saved(f"{stream}-{task}", tiny_task(stream, task), task_batch(task), auto.get(task, "AutoModel"))
        yield _trained(saved, {"labels": task_labels(task)})


def converted(folder: Path) -> Iterator[Saved]:
    """Yield UNITER and LXMERT, converted and trained for a few steps."""
    (folder / "uniter").mkdir()
    case = json.loads((GOLDEN / "uniter" / "case.json").read_text())
    (folder / "uniter" / "config.json").write_text(json.dumps(case["config"]))
    save_file(load_file(GOLDEN / "uniter" / "weights.safetensors"), folder / "uniter" / "model.safetensors")
    sizes = dict(hidden_size=16, num_attention_heads=2, intermediate_size=24, l_layers=1, x_layers=1, r_layers=1)
    labels = dict(visual_feat_dim=8, num_object_labels=5, num_attr_labels=4, num_qa_labels=3)
    LxmertForPreTraining(LxmertConfig(vocab_size=60, **sizes, **labels)).save_pretrained(folder / "lxmert")  # type: ignore[arg-type]
    for name in ("uniter", "lxmert"):
        model = from_predecessor(folder / name).eval()
        batch = {
            "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
            "region_features": torch.rand(2, 3, model.config.region_feature_dim),
            "region_boxes": torch.rand(2, 3, 2, 2).sort(2).values.flatten(2),
        }
        saved = Saved(name, model, batch, "AutoModelForPreTraining")
        yield _trained(saved, {"itm_labels": torch.tensor([1, 0])})


def outputs_of(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return every tensor that a model gives."""
    with torch.no_grad():
        return {name: value.clone() for name, value in model(**batch).items() if isinstance(value, Tensor)}


def _trained(saved: Saved, labels: dict[str, Tensor]) -> Saved:
    optimizer = torch.optim.SGD(saved.model.parameters(), lr=0.01)
    for _ in range(3):
        output = saved.model(**saved.batch, **labels)
        loss = output.pooler_output.square().mean() if not labels else output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return saved
