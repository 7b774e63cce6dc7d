"""`mmpt finetune`: from a recipe and, most often, a pre-trained model to a model of a downstream task."""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig, EarlyStoppingCallback, set_seed

from mmpt import register_auto_classes
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.hub.measures import Headline, measures_of
from mmpt.hub.model_card import Rows, Sample, write_card
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.store.fit import check_store_fits
from mmpt.processing.store.record import check_same_regions, record_of
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL, TaskDataCollator, without_labels
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.inputs import candidate_inputs, pair_inputs
from mmpt.processing.word_tokenizer import build_word_tokenizer
from mmpt.recipe.recipe import Recipe, build_config
from mmpt.recipe.sections import ModelSection
from mmpt.recipe.task_section import TaskSection
from mmpt.tasks.class_names import balanced_weights
from mmpt.tasks.gallery import write_gallery
from mmpt.tasks.layer_rates import freeze_parameters
from mmpt.tasks.prediction_files import write_predictions
from mmpt.tasks.predictions import label_numbers
from mmpt.tasks.scoring import gold_classes
from mmpt.tasks.table import TASKS, Task, constant_predictions
from mmpt.training.base_trainer import MmptTrainingArguments
from mmpt.training.data_sources import TaskCorpus, open_task_corpus
from mmpt.training.finetuning_trainer import FineTuningTrainer
from mmpt.training.pretraining import ALLOW, load_tokenizer
from mmpt.training.run import PreparedRun, build_trainer, carry_out

logger = logging.getLogger(__name__)


def finetune(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says and return the final metrics.

    The output folder then holds the model and its processor, `recipe.yaml` (resolved), `log.jsonl`, `metrics.json`,
    `curves.png`, the model card with its sample (`README.md`, `sample.json`) and, where there are evaluation rows,
    `predictions.jsonl` and (`task.gallery`) `gallery.html`. With early stopping the model is that of the best
    checkpoint. With `training.push_to_hub` the folder is pushed.

    Raises:
        ValueError, FileNotFoundError, PermissionError: for bad input, before training begins.
        FloatingPointError: if the loss stops being finite.
        SystemExit: with code 75, if SIGTERM or Ctrl-C stopped it behind a checkpoint.
    """
    register_auto_classes()
    section = recipe.task
    if section is None:
        raise MmptValueError("the recipe has no section task, expected one: what is to be fine-tuned for?")
    task = TASKS[section.name]
    return carry_out(
        recipe,
        lambda: training_arguments(recipe.training, section, task),
        lambda arguments: _prepare(recipe, section, task, arguments),
    )


def _prepare(recipe: Recipe, section: TaskSection, task: Task, arguments: MmptTrainingArguments) -> PreparedRun:
    set_seed(arguments.seed)
    corpus = open_task_corpus(recipe.data, section.name)
    if section.early_stopping_patience is not None and corpus.evaluation is None:
        raise MmptValueError("task.early_stopping_patience is given without rows to evaluate on; give data.eval_pairs")
    processor = build_processor(recipe, corpus)
    model = build_task_model(recipe.model, section, task, corpus, processor.tokenizer)
    record = record_of(corpus.train.regions, recipe.data.corpus)
    check_store_fits(model.config, record, f"{recipe.data.store or recipe.data.corpus!r}")
    learning = freeze_parameters(model, section.freeze)
    if section.freeze is not None:
        logger.info("%d of %d parameters learn", learning, model.num_parameters())
    collator = TaskDataCollator(
        processor=processor,
        config=model.config,
        inputs=task.inputs,
        labels=task.labels,
        max_text_length=recipe.data.max_text_length,
        blank=section.blank,
    )
    # The first rows meet every check of the collator before the first step, not behind a progress bar.
    evaluation = None if corpus.evaluation is None else corpus.evaluation.dataset
    for dataset in filter(None, (corpus.train, evaluation)):
        collator([dataset[row] for row in range(min(8, len(dataset)))])
    trainer: FineTuningTrainer = build_trainer(
        FineTuningTrainer,
        recipe.output_dir,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=corpus.train,
        eval_dataset=evaluation,
        processing_class=processor,
        task=task,
        layer_decay=section.layer_lr_decay,
        head_factor=section.head_lr_factor,
    )
    if section.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(section.early_stopping_patience))
    tables = {"training": corpus.train, "evaluation": evaluation}
    columns = (
        "text",
        "image_id",
        *(["second_image_id"] if "second_image_id" in corpus.train.table.column_names else []),
    )
    rows = [Rows(name, *map(table.column, columns)) for name, table in tables.items() if table]
    numbers = label_numbers(model.config)
    guesses = [] if evaluation is None else constant_predictions(task, evaluation, list(numbers))

    def measure(train: dict[str, Any]) -> dict[str, Any]:
        metrics: dict[str, Any] = {"task": section.name, "train": train}
        if evaluation is not None:
            measured = trainer.evaluate()
            metrics["evaluation"] = {name.removeprefix("eval_"): value for name, value in measured.items()}
        return metrics

    def add_metrics(metrics: dict[str, Any]) -> None:
        metrics["parameters"] = model.num_parameters()

    def headlines(metrics: dict[str, Any]) -> list[Headline]:
        value = metrics.get("evaluation", {}).get(task.metric)
        return [] if value is None else [Headline(task.metric, value, task.chance(evaluation, numbers))]  # type: ignore[arg-type]

    def write(folder: Path, metrics: dict[str, Any] | None) -> None:
        if corpus.evaluation is not None:
            table, predictions = corpus.evaluation, guesses if metrics is None else trainer.predictions
            write_predictions(folder / "predictions.jsonl", section.name, table.dataset, predictions, numbers)
            if section.gallery:
                shown = section.gallery if metrics is not None else 1
                write_gallery(folder / "gallery.html", section.name, table, predictions, numbers, shown)
        told = headlines(metrics or {})
        _write_card(folder, recipe, trainer, without_labels(collator), corpus, rows, metrics or {}, told)

    return PreparedRun(
        trainer=trainer,
        tables=rows,
        regions=corpus.train.regions,
        evaluation_names=set() if evaluation is None else set(task.score(guesses, evaluation, numbers)),
        measure=measure,
        add_metrics=add_metrics,
        headlines=headlines,
        write=write,
    )


def _write_card(
    folder: Path,
    recipe: Recipe,
    trainer: FineTuningTrainer,
    collator: TaskDataCollator,
    corpus: TaskCorpus,
    rows: list[Rows],
    metrics: dict[str, Any],
    headlines: list[Headline],
) -> None:
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    shown = corpus.train if corpus.evaluation is None else corpus.evaluation.dataset
    first = shown[0]
    # A text with one image is what the processor takes; what other tasks read is written down ready.
    if collator.inputs in (pair_inputs, candidate_inputs):
        reads_mask = model.config.answer_reads == "second_last_token"
        text = f"{first['text']} {collator.processor.tokenizer.mask_token}" if reads_mask else first["text"]
        picture = None if corpus.evaluation is None else corpus.evaluation.picture(first["image_id"])
        sample = Sample(text, first["regions"], picture)
    else:
        inputs = {name: value for name, value in collator([first]).items() if name not in NOT_FOR_THE_MODEL}
        sample = Sample(first["text"], inputs=inputs)
    write_card(
        folder,
        recipe,
        model,
        rows,
        corpus.train.regions,
        measures_of(metrics.get("evaluation", {})),
        headlines,
        sample,
        metrics.get("train", {}).get("train_runtime"),
        trainer.args.world_size,
    )


def training_arguments(training: dict[str, Any], section: TaskSection, task: Task) -> MmptTrainingArguments:
    """Return the arguments of the Trainer; where the best checkpoint is asked for, the task's metric decides.

    Raises:
        ValueError: if checkpoints are not saved when they are evaluated, or rows are to be grouped by length.
    """
    values = dict(training)
    if values.get("train_sampling_strategy", "random") == "group_by_length":
        raise MmptValueError(
            "training.train_sampling_strategy is 'group_by_length', which only pre-training has; leave it out"
        )
    if section.early_stopping_patience is not None:
        values["load_best_model_at_end"] = True
        values["restore_callback_states_from_checkpoint"] = True  # a resumed run is as patient as the whole one
    if values.get("load_best_model_at_end") and "metric_for_best_model" not in values:
        values |= {"metric_for_best_model": task.metric, "greater_is_better": True}
    return MmptTrainingArguments(**values)


def build_processor(recipe: Recipe, corpus: TaskCorpus) -> MmptProcessor:
    """Return the processor of the pre-trained folder, or one with a tokenizer of the training texts' words.

    It records what made the regions.

    Raises:
        ValueError: if the pre-trained weights know regions of another extractor.
    """
    source, data = recipe.model.from_pretrained, recipe.data
    record = record_of(corpus.train.regions, data.corpus)
    if source is None:
        names = data.tokenizer
        tokenizer = build_word_tokenizer(corpus.texts) if names is None else load_tokenizer(names, "data.tokenizer")
        return MmptProcessor(MmptImageProcessor(max_regions=data.max_regions, extracted_by=record), tokenizer)
    processor = load_pretrained(MmptProcessor, source, "model.from_pretrained")
    if not data.allow_other_regions:
        check_same_regions(processor.image_processor.extracted_by, record, f"{data.store or data.corpus!r}", ALLOW)
    processor.image_processor.extracted_by = record
    if data.tokenizer is not None:
        processor.tokenizer = load_tokenizer(data.tokenizer, "data.tokenizer")
    if data.max_regions is not None:
        processor.image_processor.max_regions = data.max_regions
    return processor


def build_task_model(
    section: ModelSection, task_section: TaskSection, task: Task, corpus: TaskCorpus, tokenizer: Any
) -> MmptTaskModel:
    """Return a model of the task: the weights that the section names with a new head, or all new.

    Raises:
        ValueError: if the weights are of the other stream, or a part of the backbone does not fit them.
    """
    fields: dict[str, Any] = {"label_smoothing": task_section.label_smoothing} | dict(section.config)
    if task.names is not None:
        names = task.names(corpus.train.table, task_section.min_answer_count)
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    fields |= _class_weights(task_section, fields, corpus.train)
    model_class: Any = task.models[section.stream]
    if section.from_pretrained is None:
        facts = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "objective_weights": {}}
        section = ModelSection(section.stream, section.preset, None, fields)
        return model_class(build_config(section, corpus.facts | facts))
    name = section.from_pretrained
    found = load_pretrained(AutoConfig, name, "model.from_pretrained").model_type
    if found != model_class.config_class.model_type:
        other = "dual" if section.stream == "single" else "single"
        raise MmptValueError(f"{section.from_pretrained!r} is a {found} model; set --stream {other}")
    model, loading = load_pretrained(
        model_class,
        name,
        "model.from_pretrained",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **fields,
    )
    misfits = [str(key[0]) for key in loading["mismatched_keys"] if str(key[0]).startswith("backbone.")]
    if misfits:
        raise MmptValueError(
            f"{', '.join(misfits[:3])} of {section.from_pretrained!r} have another shape than the configuration asks "
            "for; leave out the fields of model that change the backbone's sizes"
        )
    return model


def _class_weights(section: TaskSection, fields: dict[str, Any], train: TaskDataset) -> dict[str, Any]:
    """Return the field class_weights, where the section has one.

    Raises:
        ValueError: if the task has no classes.
    """
    weights = section.class_weights
    if weights is None:
        return {}
    if "id2label" not in fields or "label" not in train.table.column_names:
        raise MmptValueError(f"task.class_weights is {weights!r}, but task {section.name!r} has no classes to weigh")
    if weights == "balanced":
        numbers: dict[str, int] = fields["label2id"]
        return {"class_weights": balanced_weights(gold_classes(train, numbers), len(numbers))}
    if len(weights) != len(fields["id2label"]):
        raise MmptValueError(
            f"task.class_weights has {len(weights)} numbers, expected {len(fields['id2label'])}, one for each class: "
            f"{', '.join(map(str, fields['id2label'].values()))}"
        )
    return {"class_weights": [float(weight) for weight in weights]}
