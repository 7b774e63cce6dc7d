"""What the conversion of a base-size checkpoint costs: time beside reading and writing the same file, and peak memory.

LXMERT and VisualBERT of transformers with random weights, as safetensors and as a pickled state_dict, whole or in
float16. Each measurement is a process of its own, converting and copying in turn; medians over rounds. Peak memory is
that of the whole process, libraries included, as a share of the checkpoint's size in float32.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertForPreTraining,
)

CONTAINERS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.bin (fp16)")


def make_model(family: str) -> PreTrainedModel:
    """Return a model of base size with random weights."""
    if family == "lxmert":
        return LxmertForPreTraining(LxmertConfig())
    return VisualBertForPreTraining(VisualBertConfig(visual_embedding_dim=2048, pad_token_id=0))


def write_source(family: str, container: str, folder: Path) -> float:
    """Write a checkpoint as its users have it and return the size of its weights in float32, in bytes."""
    folder.mkdir()
    model = make_model(family)
    model.config.save_pretrained(folder)
    tied = set(model.all_tied_weights_keys)
    weights = {key: value for key, value in model.state_dict().items() if key not in tied}
    size = 4.0 * sum(value.numel() for value in weights.values())
    if container == "model.safetensors":
        save_file(weights, folder / container, metadata={"format": "pt"})
    elif container.endswith("(fp16)"):
        torch.save({key: value.half() for key, value in weights.items()}, folder / "pytorch_model.bin")
    else:
        torch.save(weights, folder / container)
    return size


def copy(source: Path, out: Path) -> None:
    """Read every weight, memory-mapped, and write it in float32: the least that a conversion does."""
    out.mkdir()
    safe = source / "model.safetensors"
    weights: dict[str, torch.Tensor] = (
        load_file(safe) if safe.is_file() else torch.load(source / "pytorch_model.bin", weights_only=True, mmap=True)
    )
    save_file({key: value.float() for key, value in weights.items()}, out / "model.safetensors")


def run_one(task: str, first: str, second: str) -> dict[str, float]:
    """Do one task in this process and return its seconds and the peak memory of the process in bytes.

    A process that is started counts the memory of the one that started it, so that nothing large may happen there.
    """
    from mmpt.predecessors.conversion import convert

    if task.startswith("write "):
        return {"size": write_source(task.removeprefix("write "), first, Path(second))}
    source, out = Path(first), Path(second)
    start = time.perf_counter()
    (convert if task == "convert" else copy)(source, out)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def in_own_process(*task: str) -> dict[str, float]:
    """Run `run_one` in a new process."""
    command = [sys.executable, "-m", "benchmarks.conversion", "--one", *task]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(family: str, container: str, rounds: int) -> dict[str, Any]:
    """Return medians of both tasks, each run in a process of its own, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "theirs"
        size = in_own_process(f"write {family}", container, str(source))["size"]
        in_own_process("copy", str(source), str(Path(folder) / "warm-up"))
        found: dict[str, list[dict[str, float]]] = {"copy": [], "convert": []}
        for number in range(rounds):
            for task, results in found.items():
                out = Path(folder) / f"{task}-{number}"
                results.append(in_own_process(task, str(source), str(out)))
                for file in out.rglob("*.safetensors"):
                    file.unlink()
    medians = {
        task: {name: statistics.median(result[name] for result in results) for name in ("seconds", "peak")}
        for task, results in found.items()
    }
    return {
        "checkpoint_mib": size / 2**20,
        "copy_seconds": medians["copy"]["seconds"],
        "convert_seconds": medians["convert"]["seconds"],
        "time_of_copy": medians["convert"]["seconds"] / medians["copy"]["seconds"],
        "peak_mib": medians["convert"]["peak"] / 2**20,
        "peak_of_checkpoint": medians["convert"]["peak"] / size,
    }


def main() -> None:
    """Measure, print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/conversion.json"))
    parser.add_argument("--one", nargs=3, metavar=("TASK", "FIRST", "SECOND"), help="do one task and print its cost")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(*arguments.one)))
        return
    rows = {}
    print(f"{'checkpoint':38}{'MiB':>7}{'copy s':>9}{'convert s':>11}{'of copy':>9}{'peak MiB':>10}{'of size':>9}")
    for family in ("lxmert", "visual_bert"):
        for container in CONTAINERS:
            row = rows[f"{family} {container}"] = measure(family, container, arguments.rounds)
            print(
                f"{family + ' ' + container:38}{row['checkpoint_mib']:7.0f}{row['copy_seconds']:9.2f}"
                f"{row['convert_seconds']:11.2f}{row['time_of_copy']:9.2f}{row['peak_mib']:10.0f}"
                f"{row['peak_of_checkpoint']:9.2f}"
            )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"rounds": arguments.rounds, "torch": torch.__version__}
    arguments.out.write_text(json.dumps({"settings": settings, "checkpoints": rows}, indent=2) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
