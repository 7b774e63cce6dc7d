"""What each lever is worth: the step with everything on, in turn with the step with one lever off.

One thread, process CPU time, medians of the rounds' ratios. A gain is the time without the lever over the time with it;
what is near 1 is not told apart from noise. Gradient checkpointing is listed as the time it takes: it buys memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import Contender, make_contenders
from benchmarks.measuring import median_ratio, parse, start, write
from benchmarks.workload import SIZES, make_pairs
from mmpt.modeling_mmpt import (
    dropout,
    layers,
    modeling_dual_stream,
    modeling_pretraining,
    modeling_single_stream,
    objectives,
    unpadding,
)
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.modeling_mmpt.unpadding import Layout


@contextmanager
def heads_everywhere(contender: Any) -> Iterator[None]:
    """Run every head at every place."""

    def everywhere(reads: str, labelled: Tensor, given: Any) -> None:
        return None

    # Behind the last layer there would be zeros where no head reads it by rights.
    with last_layer_everywhere(contender), patch.object(modeling_pretraining, "places_of_labels", everywhere):
        yield


@contextmanager
def instead_of_layouts(make: Callable[[str, Any, Tensor], Layout | None]) -> Iterator[None]:
    """Let both backbones make something else of a batch's layout."""

    def layout_of(name: str, given: Any, valid: Tensor, reads_all: bool) -> Layout | None:
        return make(name, given, valid)

    with (
        patch.object(modeling_single_stream, "layout_of", layout_of),
        patch.object(modeling_dual_stream, "layout_of", layout_of),
    ):
        yield


def last_layer_everywhere(_: Any) -> AbstractContextManager:
    """Compute the last layer wherever the others are computed."""
    return instead_of_layouts(lambda name, given, valid: unpadding.layout_of(name, given, valid, reads_all=True))


def padding(_: Any) -> AbstractContextManager:
    """Compute in padding too, and the last layer everywhere."""
    return instead_of_layouts(lambda name, given, valid: None)


def any_number_of_places(_: Any) -> AbstractContextManager:
    """Compute exactly the places that are needed."""
    return patch.object(unpadding, "MULTIPLE", 1)


def fused_attention(_: Any) -> AbstractContextManager:
    """Attend with PyTorch's fused kernel in half precision too."""
    return patch.object(layers, "PLAIN_ATTENTION_KEYS", 0)


def torch_dropout(_: Any) -> AbstractContextManager:
    """Draw dropout as PyTorch does, a number an element."""
    return patch.object(dropout, "LEVELS", 0)


@contextmanager
def three_casts(contender: Any) -> Iterator[None]:
    """Let each of the three projections of attention cast its input under autocast."""
    with patch.object(torch, "is_autocast_enabled", lambda *_: False):
        yield


@contextmanager
def compared_labels(_: Any) -> Iterator[None]:
    """Compare every number of a vector label, and look for the most likely class with argmax."""

    def compared(labels: Tensor) -> Tensor:
        return (labels != IGNORED).any(-1) if labels.is_floating_point() else labels != IGNORED

    with (
        patch.object(modeling_pretraining, "is_labelled", compared),
        patch.object(objectives, "most_likely", lambda scores: scores.argmax(-1)),
    ):
        yield


@contextmanager
def full_precision(contender: Any) -> Iterator[None]:
    """Compute in fp32."""
    with patch.object(contender, "precision", "fp32"):
        yield


@contextmanager
def looped_optimiser(contender: Any) -> Iterator[None]:
    """Run AdamW as a loop over parameters."""
    groups = contender.optimiser.param_groups
    for group in groups:
        group |= {"fused": False, "foreach": False}
    yield
    for group in groups:
        group |= {"fused": True, "foreach": None}


@contextmanager
def checkpointing(contender: Any) -> Iterator[None]:
    """Compute each layer again in backward."""
    contender.model.gradient_checkpointing_enable()
    yield
    contender.model.gradient_checkpointing_disable()


OFF: dict[str, Callable[[Any], AbstractContextManager]] = {
    "heads at predicted places only": heads_everywhere,
    "nothing computed in padding": padding,
    "numbers of places are multiples of 16": any_number_of_places,
    "bf16": full_precision,
    "half precision attends without the fused kernel": fused_attention,
    "dropout draws four elements a number": torch_dropout,
    "last layer where a head reads it": last_layer_everywhere,
    "attention casts its input once": three_casts,
    "labels and metrics without a comparison of each number": compared_labels,
    "fused AdamW": looped_optimiser,
    "no gradient checkpointing": checkpointing,
}
"""Each lever, and what switches it off."""


def measure(contender: Contender, pairs: Any, batch_size: int, rounds: int) -> dict[str, float]:
    """Return the gain of each lever."""
    ways: dict[str, Callable[[Any], AbstractContextManager]] = {"": lambda _: nullcontext(), **OFF}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one warms up
        first = number * batch_size % len(pairs)
        examples = [pairs[row] for row in range(first, first + batch_size)]
        for name, off in ways.items():
            with off(contender):
                seconds, _ = contender.step(examples)
            times[name].append(sum(seconds.values()))
    whole = times.pop("")[1:]
    return {name: median_ratio(found[1:], whole) for name, found in times.items()}


def measure_bucketing(contender: Contender, pairs: Any, batch_size: int, rounds: int) -> float:
    """Return the gain of batches of texts of like length over random ones, in pairs a second."""
    by_length = np.argsort(pairs.text_lengths(), kind="stable")
    grouped = by_length[: len(pairs) // batch_size * batch_size].reshape(-1, batch_size)
    order = np.random.default_rng(0).permutation(len(grouped))
    random = np.random.default_rng(1).permutation(len(pairs))
    times: dict[str, float] = {"grouped": 0.0, "random": 0.0}
    for number in range(min(rounds, len(grouped))):
        rows = {"grouped": grouped[order[number]], "random": random[number * batch_size :][:batch_size]}
        for name, chosen in rows.items():
            seconds, _ = contender.step([pairs[int(row)] for row in chosen])
            times[name] += sum(seconds.values())
    return times["random"] / times["grouped"]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table and write the JSON."""
    parser = start(__doc__, "levers", batch_size=32, rounds=6, sizes=sorted(SIZES))
    parser.add_argument("--streams", nargs="+", choices=["single", "dual"], default=["single", "dual"])
    arguments = parse(parser, words)
    names = [f"{stream}/{arguments.precision}" for stream in arguments.streams]
    contenders = make_contenders(names, arguments.size, arguments.device)
    pairs = make_pairs(arguments.batch_size * 8, 64)
    found: dict[str, dict[str, float]] = {}
    for name, contender in contenders.items():
        found[name] = measure(contender, pairs, arguments.batch_size, arguments.rounds)
        found[name]["texts of like length in a batch"] = measure_bucketing(
            contender, pairs, arguments.batch_size, arguments.rounds
        )
        for lever, gain in found[name].items():
            print(f"{name:12}{lever:58}{gain:6.2f}x", flush=True)
    write(arguments, {"gains": found})


if __name__ == "__main__":
    main()
