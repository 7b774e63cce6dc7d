"""What a pre-training step of either stream costs: collate, forward, backward, optimiser, and peak memory.

One thread by default; process CPU time, the two streams in turn on the same pairs, medians over rounds. Compare numbers
of one run only: those of a shared machine move from run to run.
"""

import argparse
import json
import resource
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import CLASSES, FEATURE_DIM, SIZES, VOCABULARY, make_pairs, make_tokenizer
from mmpt import (
    MmptDataCollator,
    MmptDualStreamConfig,
    MmptDualStreamForPreTraining,
    MmptImageProcessor,
    MmptProcessor,
    MmptSingleStreamConfig,
    MmptSingleStreamForPreTraining,
)
from mmpt.modeling_mmpt.heads import MmptForPreTraining

PARTS = ("collate", "forward", "backward", "optimiser")


def make_models(size: str) -> dict[str, MmptForPreTraining]:
    """Return a model of each stream."""
    hidden, heads, intermediate, layers, (text, region, joined) = SIZES[size]
    common: dict[str, Any] = dict(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        region_feature_dim=FEATURE_DIM,
        num_region_classes=CLASSES,
    )
    dual = MmptDualStreamConfig.lxmert(
        **common,
        num_hidden_layers=text + joined,
        region_num_hidden_layers=region + joined,
        text_co_attention_layers=list(range(text, text + joined)),
        region_co_attention_layers=list(range(region, region + joined)),
        num_region_attributes=0,
        num_qa_labels=0,
        region_background_class=0,
        confidence_weighted_classes=False,
        objective_weights=dict.fromkeys(("mlm", "mrc", "mrc_kl", "mrfr", "itm"), 1.0),
    )
    single = MmptSingleStreamConfig.uniter(**common, num_hidden_layers=layers)
    return {"single": MmptSingleStreamForPreTraining(single), "dual": MmptDualStreamForPreTraining(dual)}


def measure(size: str, batch_size: int, rounds: int, bf16: bool) -> dict[str, dict[str, float]]:
    """Return milliseconds of CPU time by part, and pairs a second, for each stream."""
    pairs = make_pairs(pairs=batch_size * 8, images=64)
    processor = MmptProcessor(MmptImageProcessor(), make_tokenizer())
    streams = {}
    for name, model in make_models(size).items():
        collator = MmptDataCollator(processor=processor, config=model.config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        streams[name] = (model.train(), collator, optimiser)
    times = {name: defaultdict(list) for name in streams}
    for number in range(rounds + 1):
        start = number * batch_size % len(pairs)
        examples = [pairs[row] for row in range(start, start + batch_size)]
        for name, (model, collator, optimiser) in streams.items():
            marks = [time.process_time()]
            batch = collator(examples)
            marks.append(time.process_time())
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**batch).loss
            marks.append(time.process_time())
            loss.backward()
            marks.append(time.process_time())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            marks.append(time.process_time())
            if number:  # the first round warms up
                for part, begin, end in zip(PARTS, marks[:-1], marks[1:], strict=True):
                    times[name][part].append(1e3 * (end - begin))
    results = {}
    for name, parts in times.items():
        medians = {part: statistics.median(values) for part, values in parts.items()}
        results[name] = medians | {"pairs_per_second": 1e3 * batch_size / sum(medians.values())}
    return results


def main() -> None:
    """Measure, print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/step.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results = measure(arguments.size, arguments.batch_size, arguments.rounds, arguments.bf16)
    print(f"{'stream':8}" + "".join(f"{part + ' ms':>14}" for part in PARTS) + f"{'pairs/s':>10}")
    for name, row in results.items():
        print(f"{name:8}" + "".join(f"{row[part]:14.1f}" for part in PARTS) + f"{row['pairs_per_second']:10.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:.0f} MiB")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"settings": settings, "torch": torch.__version__, "peak_mib": peak, "streams": results}, indent=2)
    )
    print(arguments.out)


if __name__ == "__main__":
    main()
