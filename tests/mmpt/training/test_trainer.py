"""MmptTrainer: logs, reproducibility, resuming, and what stops a run."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, set_seed

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.processing.pretraining.sampling import EpochSampler
from mmpt.training.checkpoints import last_complete_checkpoint, mark_complete, why_incomplete
from mmpt.training.trainer import LOG_NAME, MmptTrainer, MmptTrainingArguments
from tests.factories.training import tiny_collator, tiny_dataset, tiny_model, tiny_trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def run(folder: Path, **arguments) -> MmptTrainer:
    set_seed(0)
    masking = arguments.pop("masking", None)
    model = tiny_model(**arguments.pop("model", {}))
    trainer = tiny_trainer(folder, model, masking=masking, **arguments)
    trainer.train(resume_from_checkpoint=arguments.get("resume_from_checkpoint"))
    return trainer


def losses(trainer: Trainer) -> list[float]:
    return [event["loss"] for event in trainer.state.log_history if "loss" in event]


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_every_objective_is_logged_by_name_in_training_and_evaluation(tmp_path: Path, stream: str) -> None:
    evaluation = tiny_dataset(pairs=8, seed=1, for_evaluation=True)
    trainer = run(tmp_path, model={"stream": stream}, evaluation=evaluation, eval_strategy="steps", eval_steps=2)
    events = [json.loads(line) for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert [event["step"] for event in events if "loss" in event] == [1, 2, 3, 4]
    for prefix, marker in (("", "loss"), ("eval_", "eval_loss")):
        for event in (event for event in events if marker in event):
            for name in OBJECTIVE_NAMES:
                for suffix in ("loss", "count", OBJECTIVES[name].metric_name):
                    assert math.isfinite(event[f"{prefix}{name}_{suffix}"])
    assert trainer.state.log_history[0]["mlm_count"] + trainer.state.log_history[0]["mrc_count"] > 0


def test_the_logged_loss_is_the_weighted_sum_of_the_named_ones(tmp_path: Path) -> None:
    weights = {"mlm": 2.0, "mrc": 0.5, "itm": 1.0}
    trainer = run(
        tmp_path,
        model={"objective_weights": weights},
        evaluation=tiny_dataset(pairs=8, seed=1, for_evaluation=True),
        logging_steps=2,
    )
    logged = next(event for event in trainer.state.log_history if "loss" in event)
    assert set(OBJECTIVE_NAMES) - {name.removesuffix("_loss") for name in logged} == {"mrc_kl", "mrfr"}
    evaluation = trainer.evaluate()
    total = sum(weight * evaluation[f"eval_{name}_loss"] for name, weight in weights.items())
    assert evaluation["eval_loss"] == pytest.approx(total)


def test_evaluation_is_the_same_twice_and_for_any_batch_size(tmp_path: Path) -> None:
    evaluation = tiny_dataset(pairs=10, seed=1, for_evaluation=True)
    trainer = run(tmp_path, evaluation=evaluation, max_steps=1)
    first = trainer.evaluate()
    trainer.args.per_device_eval_batch_size = 3
    second = trainer.evaluate()
    for name in OBJECTIVE_NAMES:
        assert first[f"eval_{name}_count"] == second[f"eval_{name}_count"]
        assert first[f"eval_{name}_loss"] == pytest.approx(second[f"eval_{name}_loss"], abs=1e-5)


@pytest.mark.parametrize("policy", ["conditional", "joint", "one_objective"])
def test_the_same_seed_gives_the_same_losses_with_and_without_workers(tmp_path: Path, policy: str) -> None:
    masking = {"policy": policy}
    first = run(tmp_path / "a", masking=masking, max_steps=6)
    again = run(tmp_path / "b", masking=masking, max_steps=6)
    workers = run(tmp_path / "c", masking=masking, max_steps=6, dataloader_num_workers=2)
    assert losses(first) == losses(again) == losses(workers)
    other = run(tmp_path / "d", masking=masking, max_steps=6, seed=1)
    assert losses(other) != losses(first)


def test_masks_change_from_epoch_to_epoch(tmp_path: Path) -> None:
    trainer = run(tmp_path, max_steps=8, per_device_train_batch_size=16, learning_rate=0.0, weight_decay=0.0)
    assert len(set(losses(trainer))) == 8  # sixteen pairs: each step is an epoch over the same weights


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_within_an_epoch_ends_with_equal_weights(tmp_path: Path, workers: int) -> None:
    arguments = {
        "max_steps": 7,
        "dataloader_num_workers": workers,
        "save_strategy": "steps",
        "save_steps": 2,
        "model": {"hidden_dropout_prob": 0.1},
    }
    whole = run(tmp_path / "whole", **arguments)
    run(tmp_path / "cut", **(arguments | {"model": dict(arguments["model"])}))
    for step in (6, 4):  # only checkpoint-2 is left: behind half of the first epoch of four steps
        shutil.rmtree(tmp_path / "cut" / f"checkpoint-{step}")
    if (tmp_path / "cut" / "checkpoint-7").exists():
        shutil.rmtree(tmp_path / "cut" / "checkpoint-7")
    resumed = run(
        tmp_path / "cut", resume_from_checkpoint=True, **(arguments | {"model": {"hidden_dropout_prob": 0.1}})
    )
    assert losses(resumed) == losses(whole)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / LOG_NAME).read_text().splitlines()]
    assert steps == sorted(steps)


def test_an_incomplete_checkpoint_is_passed_over_and_refused_by_name(tmp_path: Path) -> None:
    trainer = run(tmp_path, save_strategy="steps", save_steps=2)
    newest, older = tmp_path / "checkpoint-4", tmp_path / "checkpoint-2"
    assert last_complete_checkpoint(tmp_path) == newest
    weights_file = newest / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-10])
    assert "expected" in str(why_incomplete(newest))
    assert last_complete_checkpoint(tmp_path) == older
    with pytest.raises(ValueError, match=r"cannot resume: .*model.safetensors has \d+ bytes, expected \d+"):
        trainer.train(resume_from_checkpoint=str(newest))
    (older / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="there is no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_without_its_marker_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(b"1234")
    assert "interrupted" in str(why_incomplete(tmp_path / "checkpoint-1"))
    mark_complete(tmp_path / "checkpoint-1")
    assert why_incomplete(tmp_path / "checkpoint-1") is None


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    trainer = run(
        tmp_path,
        evaluation=tiny_dataset(pairs=8, seed=1, for_evaluation=True),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mlm_loss",
        greater_is_better=False,
    )
    best = min(e["eval_mlm_loss"] for e in trainer.state.log_history if "eval_mlm_loss" in e)
    assert trainer.evaluate()["eval_mlm_loss"] == pytest.approx(best, abs=1e-6)


def test_a_new_run_never_resumes_from_an_earlier_one_in_its_folder(tmp_path: Path) -> None:
    run(tmp_path, save_strategy="steps", save_steps=4)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    run(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_log_that_was_cut_is_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"step": 4, "lo')
    run(tmp_path, save_strategy="steps", save_steps=2, max_steps=6, resume_from_checkpoint=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert steps[-2:] == [6, 6]


def test_a_run_that_logs_nothing_still_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    set_seed(0)
    trainer = tiny_trainer(tmp_path, tiny_model(), logging_steps=100, max_steps=4)
    trainer.add_callback(Poison())
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        trainer.train()


class Poison(TrainerCallback):
    """Make a weight infinite before the third step."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            model.backbone.text_embeddings.word_embeddings.weight.data[5:] = math.inf


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path: Path) -> None:
    set_seed(0)
    trainer = tiny_trainer(tmp_path, tiny_model(), save_strategy="steps", save_steps=1, logging_steps=10, max_steps=9)
    trainer.add_callback(Poison())
    with pytest.raises(FloatingPointError, match="the loss is nan at step 3"):
        trainer.train()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-3").exists()


def test_the_objectives_that_are_not_finite_are_named(tmp_path: Path) -> None:
    set_seed(0)
    trainer = tiny_trainer(tmp_path, tiny_model(), max_steps=9)
    trainer.model.heads["matching"].weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="not finite: itm"):
        trainer.train()


def test_the_stock_trainer_trains_with_the_collator(tmp_path: Path) -> None:
    set_seed(0)
    model = tiny_model()
    arguments = MmptTrainingArguments(
        output_dir=str(tmp_path), max_steps=3, logging_steps=1, use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    trainer = Trainer(
        model=model, args=arguments, data_collator=tiny_collator(model), train_dataset=tiny_dataset(pairs=24)
    )
    trainer.train()
    assert len(losses(trainer)) == 3


def test_without_remove_unused_columns_false_the_stock_trainer_says_what_to_do(tmp_path: Path) -> None:
    model = tiny_model()
    arguments = MmptTrainingArguments(
        output_dir=str(tmp_path), max_steps=1, use_cpu=True, remove_unused_columns=True, save_strategy="no"
    )
    trainer = Trainer(model=model, args=arguments, data_collator=tiny_collator(model), train_dataset=tiny_dataset())
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer.train()


def test_the_sampler_says_in_which_step_an_example_is_used() -> None:
    sampler = EpochSampler(tiny_dataset(pairs=10), seed=0, examples_per_step=4)
    first = list(sampler)
    assert sorted(first) == list(range(10))
    assert [index.step for index in first] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_grouping_by_length_keeps_every_row_and_puts_like_lengths_into_a_step() -> None:
    dataset = tiny_dataset(pairs=43)
    sampler = EpochSampler(dataset, seed=0, examples_per_step=4, group_by_length=True)
    order = list(sampler)
    assert sorted(order) == list(range(43))
    assert [index.step for index in order] == [place // 4 for place in range(43)]
    lengths = dataset.text_lengths()
    assert lengths.tolist() == [len(dataset.text_of(row)) for row in range(43)]
    spread = [np.ptp(lengths[order[start : start + 4]]) for start in range(0, 40, 4)]
    plain = list(EpochSampler(dataset, seed=0, examples_per_step=4))
    assert max(spread) < np.median([np.ptp(lengths[plain[start : start + 4]]) for start in range(0, 40, 4)])
    first_of_step = lengths[order[:40:4]]
    assert (np.diff(first_of_step) < 0).any()  # steps do not come in the order of their length


def test_a_run_grouped_by_length_resumes_with_equal_weights(tmp_path: Path) -> None:
    arguments = {
        "max_steps": 6,
        "train_sampling_strategy": "group_by_length",
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole = run(tmp_path, **arguments)
    shutil.rmtree(tmp_path / "checkpoint-6")
    resumed = run(tmp_path, resume_from_checkpoint=True, **arguments)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
