"""Checkpoints whose optimiser an earlier version saved: they go on, or one sentence says why not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.configuration.errors import MmptValueError
from mmpt.tasks.table import TASKS
from mmpt.training.checkpoints import mark_complete
from mmpt.training.finetuning_trainer import FineTuningTrainer
from mmpt.training.trainer import MmptTrainingArguments
from tests.factories import tasks as tiny_tasks
from tests.factories.training import tiny_model, tiny_trainer


def test_the_optimiser_of_weights_that_no_loss_reads_is_one_sentence(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    older = tiny_trainer(tmp_path, tiny_model("dual", ("mlm",)), max_steps=2, **saving)
    older.model.requires_grad_(True)  # type: ignore[union-attr]
    older.train()
    newer = tiny_trainer(tmp_path, tiny_model("dual", ("mlm",)), max_steps=4, **saving)
    with pytest.raises(MmptValueError, match=r"checkpoint-2 holds the optimiser of a run in which other weights learn"):
        newer.train(resume_from_checkpoint=True)


def retrieval(folder: Path) -> FineTuningTrainer:
    torch.manual_seed(0)
    return FineTuningTrainer(
        model=tiny_tasks.model("retrieval", contrastive_size=8),
        args=MmptTrainingArguments(
            output_dir=str(folder), max_steps=4, save_strategy="steps", save_steps=2, use_cpu=True, disable_tqdm=True,
            per_device_train_batch_size=4, learning_rate=0.01, seed=0,
            optim="adamw_torch",  # the fused one takes a scalar as it is
        ),
        data_collator=tiny_tasks.collator("retrieval"),
        train_dataset=tiny_tasks.dataset("retrieval", 12),
        task=TASKS["retrieval"],
    )  # fmt: skip


def test_the_optimiser_of_a_scalar_scale_goes_on(tmp_path: Path) -> None:
    whole = retrieval(tmp_path)
    whole.train()
    checkpoint = tmp_path / "checkpoint-2"
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    vectors = [
        (each, name)
        for each in state["state"].values()
        for name, value in each.items()
        if name != "step" and value.shape == (1,)
    ]
    for each, name in vectors:
        each[name] = each[name].reshape(())
    assert [name for _, name in vectors if name == "exp_avg"]
    torch.save(state, checkpoint / "optimizer.pt")
    mark_complete(checkpoint)
    resumed = retrieval(tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
