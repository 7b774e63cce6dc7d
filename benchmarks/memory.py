"""Peak memory of a step, each contender in a process of its own.

A small step first makes the optimiser's moments, then one whole batch. On a CPU the peak is that of the process,
libraries and data included; on a GPU that of the allocator.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence

import torch

from benchmarks.measuring import parse, start, write
from benchmarks.workload import SIZES

DEFAULT = ["single", "dual", "lxmert", "visual_bert"]


def measure_here(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the peak of this process in MiB, before any step and after one."""
    from benchmarks.contenders import make_contenders
    from benchmarks.workload import make_pairs

    pairs = make_pairs(arguments.batch_size, 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    contender = make_contenders([name], arguments.size, arguments.device)[name]
    if arguments.checkpointing:
        contender.model.gradient_checkpointing_enable()
    contender.step([pairs[row] for row in range(2)])
    contender.step([pairs[row] for row in range(arguments.batch_size)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.device.type == "cuda":
        before, peak = 0.0, torch.cuda.max_memory_allocated(arguments.device) / 2**20
    return {"before_mib": before, "peak_mib": peak}


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table and write the JSON."""
    parser = start(__doc__, "memory", batch_size=64, rounds=1, sizes=sorted(SIZES))
    parser.add_argument("--contenders", nargs="+", default=DEFAULT, metavar="MODEL")
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--one", action="store_true", help="measure the one contender in this process")
    arguments = parse(parser, words)
    if arguments.one:
        print(json.dumps(measure_here(f"{arguments.contenders[0]}/{arguments.precision}", arguments)))
        return
    rows = {}
    options = ["--size", arguments.size, "--batch-size", str(arguments.batch_size), "--device", str(arguments.device)]
    options += ["--precision", arguments.precision] + ["--checkpointing"] * arguments.checkpointing
    for name in arguments.contenders:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", *options, "--contenders", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:14}{rows[name]['peak_mib']:9.0f} MiB", flush=True)
    ratios = {
        ours: {name: rows[ours]["peak_mib"] / row["peak_mib"] for name, row in rows.items() if name != ours}
        for ours in ("single", "dual")
        if ours in rows
    }
    for ours, others in ratios.items():
        print(f"{ours} takes of:", "  ".join(f"{name} {share:.2f}" for name, share in others.items()))
    write(arguments, {"contenders": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
