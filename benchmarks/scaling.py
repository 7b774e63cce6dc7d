"""How the cost of a step grows with batch, regions, words, width and depth, and what a second process gives.

One quantity changes at a time, from the single stream at the size asked for; one thread, process CPU time, all points
of a curve in turn, medians. Then the same step in one process and in two (gloo), each with the whole batch: efficiency
is the time alone over the time together, by CPU time (what communication costs) and by the clock (what a user sees,
where a core is free for each).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks.contenders import Contender, make_config, make_contenders
from benchmarks.measuring import matmul_rate, parse, start, write
from benchmarks.workload import REGIONS, SIZES, make_pairs, make_tokenizer
from mmpt import MmptImageProcessor, MmptProcessor, MmptSingleStreamForPreTraining
from mmpt.training.process_group import leave_process_group

GROWTH: dict[str, tuple[int, ...]] = {
    "batch": (8, 16, 32, 64),
    "regions": (18, 36, 72, 100),
    "words": (8, 16, 32, 60),
    "width": (128, 256, 512, 768),
    "depth": (3, 6, 12),
}
QUICK: dict[str, tuple[int, ...]] = {"batch": (4, 8), "regions": (9, 18), "depth": (1, 2)}


def make_point(what: str, value: int, arguments: argparse.Namespace) -> tuple[Contender, Any, int]:
    """Return a model, its pairs and its batch size, with one quantity changed."""
    hidden, _, intermediate, layers, _ = SIZES[arguments.size]
    width = value if what == "width" else hidden
    config: Any = make_config(
        "single",
        arguments.size,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=intermediate * width // hidden,
        num_hidden_layers=value if what == "depth" else layers,
    )
    model = MmptSingleStreamForPreTraining(config).train().to(arguments.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    processor = MmptProcessor(MmptImageProcessor(), make_tokenizer())
    name = f"single/{arguments.precision}"
    batch_size = value if what == "batch" else arguments.batch_size
    regions = value if what == "regions" else REGIONS
    pairs = make_pairs(2 * batch_size, 32, regions_per_image=regions, words=value if what == "words" else None)
    return Contender(name, model, optimiser, processor, arguments.device), pairs, batch_size


def measure(what: str, values: Sequence[int], arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Return for each value the time and the useful work of a pair, and the utilisation."""
    points = [make_point(what, value, arguments) for value in values]
    times: list[list[float]] = [[] for _ in points]
    work = [0.0] * len(points)
    rates = []
    for number in range(arguments.rounds + 1):
        rates.append(matmul_rate(arguments.precision, arguments.device))
        for place, (contender, pairs, batch_size) in enumerate(points):
            first = number % 2 * batch_size
            seconds, batch = contender.step([pairs[row] for row in range(first, first + batch_size)])
            times[place].append(sum(seconds.values()))
            work[place] = contender.flops(batch)
    rows = []
    for value, (_, _, batch_size), seconds, flops in zip(values, points, times, work, strict=True):
        median = statistics.median(seconds[1:])
        row = {
            "value": float(value),
            "ms_per_pair": 1e3 * median / batch_size,
            "gflop_per_pair": flops / batch_size / 1e9,
        }
        rows.append(row | {"utilisation": flops / median / statistics.median(rates)})
    return rows


def run_worker(arguments: argparse.Namespace) -> None:
    """Take steps in this process, one of `WORLD_SIZE`, and write the medians from the first."""
    world = int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    name = f"single/{arguments.precision}"
    contender = make_contenders([name], arguments.size, arguments.device)[name]
    if world > 1:
        contender.model = DistributedDataParallel(contender.model)
    pairs = make_pairs(2 * arguments.batch_size, 32, seed=int(os.environ["RANK"]))
    found: dict[str, list[float]] = {"cpu_ms": [], "clock_ms": []}
    for number in range(arguments.rounds + 1):
        first = number % 2 * arguments.batch_size
        cpu, clock = time.process_time(), time.perf_counter()
        contender.step([pairs[row] for row in range(first, first + arguments.batch_size)])
        found["cpu_ms"].append(1e3 * (time.process_time() - cpu))
        found["clock_ms"].append(1e3 * (time.perf_counter() - clock))
    if os.environ["RANK"] == "0":
        medians = {name: statistics.median(values[1:]) for name, values in found.items()}
        arguments.worker.write_text(json.dumps(medians))


def measure_processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the step of one process alone and of each of two together, and the efficiency."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in (1, 2):
            out = Path(folder) / f"{world}.json"
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(world), "--standalone"]
            command += ["-m", "benchmarks.scaling", "--worker", str(out), "--size", arguments.size]
            command += ["--batch-size", str(arguments.batch_size), "--rounds", str(arguments.rounds)]
            subprocess.run([*command, "--precision", arguments.precision], check=True)
            found[str(world)] = json.loads(out.read_text())
    for clock in ("cpu", "clock"):
        found[f"efficiency_{clock}"] = found["1"][f"{clock}_ms"] / found["2"][f"{clock}_ms"]
    return found


def plot(curves: dict[str, list[dict[str, float]]], png: Path) -> None:
    """Draw a panel for each quantity: the time of a pair, and what it would be at the first point's utilisation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(2.6 * len(curves), 2.9), layout="constrained", squeeze=False)
    for panel, (what, rows) in zip(panels[0], curves.items(), strict=True):
        values = [row["value"] for row in rows]
        panel.plot(values, [row["ms_per_pair"] for row in rows], "o-", color="#4477AA", label="time")
        first = rows[0]["ms_per_pair"] / rows[0]["gflop_per_pair"]
        panel.plot(values, [first * row["gflop_per_pair"] for row in rows], "--", color="#BBBBBB", label="work")
        for row in rows:
            panel.annotate(
                f"{100 * row['utilisation']:.0f} %",
                (row["value"], row["ms_per_pair"]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        panel.set(xlabel=what, ylim=(0, None))
        panel.margins(y=0.2)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("ms of one core for a pair")
    panels[0][0].legend(frameon=False, fontsize=7)
    figure.suptitle("Cost of a pair as one quantity grows (labels: share of the matmul rate)", fontsize=9)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=140)
    plt.close(figure)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print tables, write the JSON and the plot."""
    parser = start(__doc__, "scaling", batch_size=32, rounds=3, sizes=sorted(SIZES))
    parser.add_argument("--no-processes", action="store_true", help="leave the second process out")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parse(parser, words)
    if arguments.worker:
        run_worker(arguments)
        leave_process_group()
        return
    curves = {}
    for what, values in (QUICK if arguments.quick else GROWTH).items():
        curves[what] = measure(what, values, arguments)
        for row in curves[what]:
            print(
                f"{what:9}{row['value']:6.0f}{row['ms_per_pair']:9.2f} ms a pair{row['gflop_per_pair']:8.2f} GFLOP"
                f"{row['utilisation']:8.1%}",
                flush=True,
            )
    processes = {} if arguments.no_processes else measure_processes(arguments)
    if processes:
        print(f"two processes: {processes['efficiency_cpu']:.2f} by CPU, {processes['efficiency_clock']:.2f} by clock")
    if arguments.plot:
        plot(curves, arguments.plot)
    write(arguments, {"curves": curves, "processes": processes})


if __name__ == "__main__":
    main()
