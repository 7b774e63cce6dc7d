"""`mmpt pretrain`: from a recipe to a trained model, its curves and its metrics."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, set_seed

from mmpt import register_auto_classes
from mmpt.checked_trainer import CheckedTrainer
from mmpt.corpus import Corpus, open_corpus
from mmpt.curves import plot_curves
from mmpt.grounding import attribute_word_accuracy, measure_grounding
from mmpt.hub import push_folder
from mmpt.model_card import Rows, Sample, measures_of, measures_of_objectives, write_card
from mmpt.modeling_mmpt.heads import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from mmpt.processing.collator import MmptDataCollator
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pair_dataset import StepIndex
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.region_record import Record, check_same_regions, record_of
from mmpt.processing.word_tokenizer import build_word_tokenizer
from mmpt.recipe import ModelSection, Recipe, build_config, check_output_dir
from mmpt.trainer import LOG_NAME, MmptTrainer, MmptTrainingArguments

logger = logging.getLogger(__name__)

ALLOW = "set data.allow_other_regions=true"
MODELS = {"single": MmptSingleStreamForPreTraining, "dual": MmptDualStreamForPreTraining}


def pretrain(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says and return the final metrics.

    The output folder then holds the model and its processor, `recipe.yaml` (resolved), `log.jsonl`, `metrics.json`,
    `curves.png`, and the model card with its sample, `README.md` and `sample.json`. With `training.push_to_hub` it is
    pushed: each checkpoint as the recipe says, and the whole at the end.

    Raises:
        ValueError, FileNotFoundError, PermissionError: for bad input, before training begins.
        FloatingPointError: if the loss stops being finite.
    """
    register_auto_classes()
    output_dir = recipe.output_dir
    check_output_dir(output_dir)
    arguments = MmptTrainingArguments(**recipe.training)
    set_seed(arguments.seed)
    corpus = open_corpus(recipe.data)
    # Weights go on with the words that they were trained with.
    tokenizer_name = recipe.data.tokenizer or recipe.model.from_pretrained
    tokenizer = (
        build_word_tokenizer(corpus.texts) if tokenizer_name is None else AutoTokenizer.from_pretrained(tokenizer_name)
    )
    facts = corpus.facts | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = build_model(recipe.model, facts)
    record = record_of(corpus.train.regions, recipe.data.corpus)
    if recipe.model.from_pretrained is not None and not recipe.data.allow_other_regions:
        known = recorded_regions(recipe.model.from_pretrained)
        check_same_regions(known, record, f"{recipe.data.store or recipe.data.corpus!r}", ALLOW)
    processor = MmptProcessor(MmptImageProcessor(max_regions=recipe.data.max_regions, extracted_by=record), tokenizer)
    masking = recipe.masking
    collator = MmptDataCollator(
        processor=processor,
        config=model.config,
        policy=masking.policy,
        probability=masking.probability,
        shares=masking.shares,
        whole_word=masking.whole_word,
        overlap_threshold=masking.overlap_threshold,
        classify_all_regions=masking.classify_all_regions,
        hard_negative_rate=masking.hard_negative_rate,
        max_text_length=recipe.data.max_text_length,
        seed=masking.seed,
    )
    # The first batch meets every check of the collator before the first step, not behind a progress bar.
    collator([corpus.train[StepIndex(row, 0)] for row in range(min(8, len(corpus.train)))])
    trainer = MmptTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=corpus.train,
        eval_dataset=corpus.evaluation,
        processing_class=processor,
    )
    if trainer.is_world_process_zero():
        recipe.write(output_dir / "recipe.yaml")
    resume = arguments.resume_from_checkpoint
    result = trainer.train(resume_from_checkpoint=True if resume == "last" else resume)
    trainer.save_model(_internal_call=True)  # pushed below, whole
    metrics: dict[str, Any] = {"train": result.metrics}
    if corpus.evaluation is not None:
        metrics["evaluation"] = trainer.evaluate()
    if trainer.is_world_process_zero():
        metrics |= _grounding(trainer, collator, corpus)
        metrics["parameters"] = model.num_parameters()
        (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        if any("loss" in event or "eval_loss" in event for event in trainer.state.log_history):
            plot_curves(output_dir / LOG_NAME, output_dir / "curves.png")
        else:
            logger.warning("no curves were drawn: the run ended before its first log event; lower logging_steps")
        _write_card(recipe, trainer, collator, corpus, metrics)
        push_run(trainer, output_dir)
    trainer.accelerator.wait_for_everyone()
    return metrics


def recorded_regions(source: str) -> Record | None:
    """Return the record of the regions that saved weights were trained on; None where no processor is beside them."""
    try:
        return MmptProcessor.from_pretrained(source).image_processor.extracted_by
    except OSError:
        return None


def push_run(trainer: CheckedTrainer, output_dir: Path) -> None:
    """Push the folder of a run that has ended, if its arguments say so; nothing of it is lost if the Hub refuses."""
    args = trainer.args
    if args.push_to_hub:
        trainer._finish_current_push()
        name, private = str(trainer.hub_model_id), args.hub_private_repo
        address = push_folder(output_dir, name, private=private, token=args.hub_token, revision=args.hub_revision)
        logger.warning("pushed to %s", address)


def build_model(section: ModelSection, facts: dict[str, Any]) -> MmptForPreTraining:
    """Return a new model of the section's configuration, or the one that it names with its weights.

    Args:
        facts: fields of the configuration that tokenizer and data decide.
    """
    model_class = MODELS[section.stream]
    if section.from_pretrained is not None:
        return model_class.from_pretrained(section.from_pretrained, **section.config)
    return model_class(build_config(section, facts))


def _write_card(
    recipe: Recipe, trainer: MmptTrainer, collator: MmptDataCollator, corpus: Corpus, metrics: dict[str, Any]
) -> None:
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    tables = {"training": corpus.train, "evaluation": corpus.evaluation}
    compositions = {f"compositions_{name}": value for name, value in metrics.get("grounding_compositions", {}).items()}
    measures = measures_of_objectives(metrics.get("evaluation", {}))
    measures += measures_of(metrics.get("grounding", {}) | compositions)
    shown = corpus.train if corpus.evaluation is None else corpus.evaluation
    text = shown.text_of(0)
    if "mlm" in model.config.objective_weights:
        text = mask_a_word(text, collator.processor.tokenizer, corpus.attribute_words)
    write_card(
        recipe.output_dir,
        recipe,
        model,
        [
            Rows(name, pairs.pairs["text"][:], pairs.pairs["image_id"][:])
            for name, pairs in tables.items()
            if pairs is not None
        ],
        corpus.train.regions,
        measures,
        Sample(text, shown.regions_of(0)),
        metrics["train"].get("train_runtime"),
        trainer.args.world_size,
    )


def mask_a_word(text: str, tokenizer: Any, preferred: Mapping[str, str]) -> str:
    """Return a text with one word masked: the first of the preferred ones, or one near its beginning."""
    words = text.split()
    place = next((number for number, word in enumerate(words) if word in preferred), min(len(words) - 1, 3))
    return " ".join([*words[:place], tokenizer.mask_token, *words[place + 1 :]])


def _grounding(trainer: MmptTrainer, collator: MmptDataCollator, corpus: Corpus) -> dict[str, Any]:
    """Return the measures of grounding, where the corpus has words that measure it."""
    if not corpus.attribute_words or corpus.evaluation is None:
        return {}
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    words = corpus.attribute_words
    measures = measure_grounding(model, collator, corpus.train, corpus.evaluation, words, corpus.hard_negatives)
    metrics = {"grounding": measures}
    if corpus.compositions is not None and "mlm" in model.config.objective_weights:
        metrics["grounding_compositions"] = attribute_word_accuracy(model, collator, corpus.compositions, words)
    return metrics
