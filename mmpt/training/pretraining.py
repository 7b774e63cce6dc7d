"""`mmpt pretrain`: from a recipe to a trained model, its curves and its metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, set_seed

from mmpt import register_auto_classes
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.explanations.word_examples import mask_a_word
from mmpt.hub.measures import Headline, measures_of, measures_of_objectives
from mmpt.hub.model_card import Rows, Sample, write_card
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.modeling_mmpt.task_models import PRETRAINING_MODELS
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.pairs.dataset import StepIndex
from mmpt.processing.pretraining.collator import MmptDataCollator
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.store.fit import check_store_fits
from mmpt.processing.store.record import Record, check_same_regions, record_of
from mmpt.processing.word_tokenizer import build_word_tokenizer
from mmpt.recipe.recipe import Recipe, build_config
from mmpt.recipe.sections import ModelSection
from mmpt.training.data_sources import Corpus, open_corpus
from mmpt.training.grounding import attribute_word_accuracy, measure_grounding
from mmpt.training.run import PreparedRun, build_trainer, carry_out
from mmpt.training.trainer import MmptTrainer, MmptTrainingArguments

ALLOW = "set data.allow_other_regions=true"


def pretrain(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says and return the final metrics.

    The output folder then holds the model and its processor, `recipe.yaml` (resolved), `log.jsonl`, `metrics.json`,
    `curves.png`, and the model card with its sample, `README.md` and `sample.json`. With `training.push_to_hub` it is
    pushed: each checkpoint as the recipe says, and the whole at the end.

    Raises:
        ValueError, FileNotFoundError, PermissionError: for bad input, before training begins.
        FloatingPointError: if the loss stops being finite.
        SystemExit: with code 75, if SIGTERM or Ctrl-C stopped it behind a checkpoint.
    """
    register_auto_classes()
    return carry_out(recipe, lambda: MmptTrainingArguments(**recipe.training), lambda args: _prepare(recipe, args))


def _prepare(recipe: Recipe, arguments: MmptTrainingArguments) -> PreparedRun:
    set_seed(arguments.seed)
    corpus = open_corpus(recipe.data)
    # Weights go on with the words that they were trained with.
    tokenizer_name = recipe.data.tokenizer or recipe.model.from_pretrained
    tokenizer = (
        build_word_tokenizer(corpus.texts)
        if tokenizer_name is None
        else load_tokenizer(tokenizer_name, "data.tokenizer" if recipe.data.tokenizer else "model.from_pretrained")
    )
    facts = corpus.facts | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = build_model(recipe.model, facts)
    record = record_of(corpus.train.regions, recipe.data.corpus)
    check_store_fits(model.config, record, f"{recipe.data.store or recipe.data.corpus!r}")
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
        words=masking.words,
        overlap_threshold=masking.overlap_threshold,
        classify_all_regions=masking.classify_all_regions,
        hard_negative_rate=masking.hard_negative_rate,
        max_text_length=recipe.data.max_text_length,
        seed=masking.seed,
    )
    # The first batch meets every check of the collator before the first step, not behind a progress bar.
    collator([corpus.train[StepIndex(row, 0)] for row in range(min(8, len(corpus.train)))])
    trainer: MmptTrainer = build_trainer(
        MmptTrainer,
        recipe.output_dir,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=corpus.train,
        eval_dataset=corpus.evaluation,
        processing_class=processor,
    )
    tables = {"training": corpus.train, "evaluation": corpus.evaluation}
    table: Any = corpus.train.pairs
    known = table if isinstance(table, Mapping) else table.column_names
    columns = [name for name in ("text", "image_id", "second_image_id") if name in known]
    rows = [
        Rows(name, *(pairs.pairs[each][:] for each in columns)) for name, pairs in tables.items() if pairs is not None
    ]

    def measure(train: dict[str, Any]) -> dict[str, Any]:
        evaluation = {} if corpus.evaluation is None else {"evaluation": trainer.evaluate()}
        return {"train": train} | evaluation

    def add_metrics(metrics: dict[str, Any]) -> None:
        metrics |= _grounding(trainer, collator, corpus)
        metrics["parameters"] = model.num_parameters()

    return PreparedRun(
        trainer=trainer,
        tables=rows,
        regions=corpus.train.regions,
        evaluation_names={
            f"{name}_{kind}" for name in trainer.objectives for kind in ("loss", "count", OBJECTIVES[name].metric_name)
        },
        measure=measure,
        add_metrics=add_metrics,
        headlines=lambda metrics: _headlines(metrics, model.config, corpus),
        write=lambda folder, metrics: _write_card(folder, recipe, trainer, collator, corpus, rows, metrics or {}),
    )


def load_tokenizer(name: str, key: str) -> Any:
    """Return the tokenizer of a folder or Hub name; an error names the key of the recipe."""
    return load_pretrained(AutoTokenizer, name, key)


def recorded_regions(source: str) -> Record | None:
    """Return the record of the regions that saved weights were trained on; None where no processor is beside them."""
    try:
        processor: MmptProcessor = load_pretrained(MmptProcessor, source)
    except (OSError, MmptValueError):
        return None
    return processor.image_processor.extracted_by


def build_model(section: ModelSection, facts: dict[str, Any]) -> MmptForPreTraining:
    """Return a new model of the section's configuration, or the one that it names with its weights.

    Args:
        facts: fields of the configuration that tokenizer and data decide.
    """
    model_class = PRETRAINING_MODELS[section.stream]
    if section.from_pretrained is not None:
        return load_pretrained(model_class, section.from_pretrained, "model.from_pretrained", **section.config)
    return model_class(build_config(section, facts))


def _write_card(
    folder: Path,
    recipe: Recipe,
    trainer: MmptTrainer,
    collator: MmptDataCollator,
    corpus: Corpus,
    rows: list[Rows],
    metrics: dict[str, Any],
) -> None:
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    compositions = {f"compositions_{name}": value for name, value in metrics.get("grounding_compositions", {}).items()}
    measures = measures_of_objectives(metrics.get("evaluation", {}))
    measures += measures_of(metrics.get("grounding", {}) | compositions)
    shown = corpus.train if corpus.evaluation is None else corpus.evaluation
    text = shown.text_of(0)
    if "mlm" in model.config.objective_weights:
        text, _ = mask_a_word(text, collator.processor.tokenizer.mask_token, corpus.attribute_words)
    write_card(
        folder,
        recipe,
        model,
        rows,
        corpus.train.regions,
        measures,
        _headlines(metrics, model.config, corpus),
        Sample(text, shown.regions_of(0), corpus.picture(shown.pairs["image_id"][0])),
        metrics.get("train", {}).get("train_runtime"),
        trainer.args.world_size,
    )


def _headlines(metrics: Mapping[str, Any], config: Any, corpus: Corpus) -> list[Headline]:
    """Return each objective's metric beside that of guessing: a word or class among all, a pair by a coin.

    Where attribute words measure grounding, their accuracy is the first, beside that with every region zeroed.
    """
    evaluation, grounding = metrics.get("evaluation", {}), metrics.get("grounding", {})
    words = "attribute_word_accuracy"
    first = [Headline(words, grounding[words], grounding[f"{words}_zeroed"])] if words in grounding else []
    classes = corpus.facts.get("num_region_classes")
    guesses = {"mlm": 1 / config.vocab_size, "mrfr": 0.0, "itm": 0.5}
    guesses |= dict.fromkeys(("mrc", "mrc_kl"), 1 / classes) if classes else {}
    names = {name: f"{name}_{objective.metric_name}" for name, objective in OBJECTIVES.items()}
    return first + [
        Headline(names[name], evaluation[f"eval_{names[name]}"], guesses.get(name))
        for name in OBJECTIVES
        if f"eval_{names[name]}" in evaluation
    ]


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
