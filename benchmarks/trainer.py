"""`mmpt pretrain` in its steady state beside a bare loop: what Trainer, sampler, logging and checks cost.

The run is the one of the command, from a recipe, a store and a table on the disk. A callback takes a bare step
(collate, forward, backward, clip, AdamW) of a model of the same size on the same pairs behind each of the Trainer's
steps, and both are timed in CPU time of the process: in turn, medians of the ratios.
"""

import json
import statistics
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from transformers import TrainerCallback

from benchmarks.contenders import Contender, make_contenders
from benchmarks.loader import write_store
from benchmarks.measuring import median_ratio, now, parse, start, write
from benchmarks.workload import SIZES, make_pairs, make_tokenizer
from mmpt.recipe.recipe import load_recipe
from mmpt.training import pretraining
from mmpt.training.trainer import MmptTrainer

LOGGING_STEPS = 5


class BareLoop(TrainerCallback):
    """Takes a bare step behind each of the Trainer's, on the same examples.

    Args:
        contender: the bare loop's model.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.waiting: deque[list[Any]] = deque()
        self.times: dict[str, list[float]] = {"trainer": [], "bare": []}
        self.resumed = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.resumed:  # what came before the first step is not the steady state
            self.times["trainer"].append(now(self.contender.device) - self.resumed)
        seconds, _ = self.contender.step(self.waiting.popleft())
        if self.resumed:
            self.times["bare"].append(sum(seconds.values()))
        self.resumed = now(self.contender.device)


def write_recipe(folder: Path, size: str, precision: str, batch_size: int, steps: int) -> Path:
    """Write a recipe with its store, table and tokenizer."""
    pairs = make_pairs(batch_size * 8, 64)
    write_store(folder / "store", pairs)
    rows = zip(pairs.pairs["text"], pairs.pairs["image_id"], strict=True)
    lines = [json.dumps({"text": text, "image_id": image_id}) for text, image_id in rows]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    hidden, heads, intermediate, layers, _ = SIZES[size]
    recipe = {
        "model": {
            "preset": "uniter",
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
        },
        "data": {name: str(folder / file) for name, file in (("store", "store"), ("pairs", "pairs.jsonl"))}
        | {"tokenizer": str(folder / "tokenizer")},
        "training": {
            "output_dir": str(folder / "run"),
            "max_steps": steps,
            "per_device_train_batch_size": batch_size,
            "learning_rate": 1e-4,
            "logging_steps": LOGGING_STEPS,
            "save_strategy": "no",
            "bf16": precision == "bf16",
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def measure(folder: Path, size: str, precision: str, batch_size: int, steps: int, device: Any) -> dict[str, float]:
    """Return the milliseconds of a step of both, and the Trainer's time over the bare loop's."""
    name = f"single/{precision}"
    loop = BareLoop(make_contenders([name], size, device)[name])

    class Watched(MmptTrainer):
        def __init__(self, data_collator: Any, **kwargs: Any) -> None:
            def collate(examples: list[Any]) -> Any:
                loop.waiting.append(examples)
                return data_collator(examples)

            super().__init__(data_collator=collate, callbacks=[loop], **kwargs)

    recipe = load_recipe(write_recipe(folder, size, precision, batch_size, steps))
    with patch.object(pretraining, "MmptTrainer", Watched):
        pretraining.pretrain(recipe)
    times = {name: found[1:] for name, found in loop.times.items()}  # one more to warm up
    medians = {f"{name}_ms": 1e3 * statistics.median(found) for name, found in times.items()}
    return medians | {"trainer_over_bare": median_ratio(times["trainer"], times["bare"])}


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    arguments = parse(start(__doc__, "trainer", batch_size=32, rounds=25, sizes=sorted(SIZES)), words)
    with tempfile.TemporaryDirectory() as folder:
        steps = arguments.rounds + 3
        found = measure(
            Path(folder), arguments.size, arguments.precision, arguments.batch_size, steps, arguments.device
        )
    print(f"trainer {found['trainer_ms']:.1f} ms, bare {found['bare_ms']:.1f} ms: {found['trainer_over_bare']:.3f}")
    write(arguments, found)


if __name__ == "__main__":
    main()
