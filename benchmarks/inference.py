"""What an answer costs: question answering of both streams beside LXMERT and VisualBERT of transformers.

One thread; process CPU time (on a GPU the clock's), a batch of each contender in turn on the same pairs, medians over
rounds, gains as medians of the rounds' ratios. Weights are in the number format that is computed in, batches are ready
made, and only the models' forward pass is timed. Compare numbers of one run only.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LxmertConfig, LxmertForQuestionAnswering, VisualBertConfig, VisualBertForQuestionAnswering

from benchmarks.contenders import make_config
from benchmarks.measuring import DTYPES, median_ratio, now, parse, start, write
from benchmarks.workload import FEATURE_DIM, SIZES, VOCABULARY, make_pairs, make_tokenizer
from mmpt import (
    MmptDualStreamForQuestionAnswering,
    MmptImageProcessor,
    MmptProcessor,
    MmptSingleStreamForQuestionAnswering,
)
from mmpt.processing.tasks.collator import TaskDataCollator
from mmpt.processing.tasks.inputs import pair_inputs

ANSWERS = 3_129
OURS = {"single": MmptSingleStreamForQuestionAnswering, "dual": MmptDualStreamForQuestionAnswering}
PEERS = ("lxmert", "visual_bert")


def make_model(name: str, size: str) -> Any:
    """Return a model of a size, with random weights."""
    hidden, heads, intermediate, layers, (text, region, joined) = SIZES[size]
    if name in OURS:
        return OURS[name](make_config(name, size, num_labels=ANSWERS))
    common: dict[str, Any] = dict(
        vocab_size=VOCABULARY, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate
    )
    depths: dict[str, Any]
    if name == "lxmert":
        depths = dict(l_layers=text, r_layers=region, x_layers=joined, num_qa_labels=ANSWERS)
        return LxmertForQuestionAnswering(LxmertConfig(**common, **depths))
    depths = dict(num_hidden_layers=layers, visual_embedding_dim=FEATURE_DIM, num_labels=ANSWERS)
    return VisualBertForQuestionAnswering(VisualBertConfig(**common, **depths, pad_token_id=0))


def inputs_of(name: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what a model reads of the collator's batch."""
    if name in OURS:
        return {key: value for key, value in batch.items() if key != "rows"}
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    features, boxes, mask = (batch[f"region_{key}"] for key in ("features", "boxes", "attention_mask"))
    if name == "lxmert":
        return given | {"visual_feats": features, "visual_pos": boxes, "visual_attention_mask": mask}
    types = torch.ones_like(mask)
    return given | {"visual_embeds": features, "visual_attention_mask": mask, "visual_token_type_ids": types}


def measure(models: dict[str, Any], pairs: Any, batch_size: int, rounds: int, device: torch.device) -> dict:
    """Return the seconds of each model's batches."""
    processor = MmptProcessor(MmptImageProcessor(), make_tokenizer())
    collator = TaskDataCollator(processor, models[next(name for name in models if name in OURS)].config, pair_inputs)
    collators = {name: TaskDataCollator(processor, models[name].config, pair_inputs) for name in models if name in OURS}
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):  # the first one warms up
        first = number * batch_size % len(pairs)
        examples = [pairs[row] for row in range(first, first + batch_size)]
        for name, model in models.items():
            batch = inputs_of(name, collators.get(name, collator)(examples))
            batch = {
                key: (value.to(model.dtype) if value.is_floating_point() else value).to(device)
                for key, value in batch.items()
            }
            begin = now(device)
            with torch.inference_mode():
                model(**batch)
            times[name].append(now(device) - begin)
    return {name: found[1:] for name, found in times.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table and write the JSON."""
    parser = start(__doc__, "inference", batch_size=1, rounds=8, sizes=sorted(SIZES))
    arguments = parse(parser, words)
    dtype = DTYPES[arguments.precision]
    models = {name: make_model(name, arguments.size).eval().to(arguments.device, dtype) for name in (*OURS, *PEERS)}
    pairs = make_pairs(arguments.batch_size * 8, min(arguments.batch_size * 8, 64))
    times = measure(models, pairs, arguments.batch_size, arguments.rounds, arguments.device)
    answers = {name: arguments.batch_size / statistics.median(found) for name, found in times.items()}
    gains = {ours: {name: median_ratio(times[name], times[ours]) for name in PEERS} for ours in OURS}
    for name, rate in answers.items():
        over = "  ".join(f"{peer} {gain:.2f}x" for peer, gain in gains.get(name, {}).items())
        print(f"{name:14}{rate:9.1f} answers/s  {over}", flush=True)
    write(arguments, {"answers_per_second": answers, "gains": gains})


if __name__ == "__main__":
    main()
