"""What the benchmarks share: the clock, the machine's matmul rate, ratios of rounds, and the JSON."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from mmpt.training.process_settings import configure_process

GEMM = 2048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def now(device: torch.device) -> float:
    """Return seconds of CPU time of this process; on a GPU those of the clock, when all that was asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def matmul_rate(precision: str, device: torch.device) -> float:
    """Return the FLOP/s of one square matrix product."""
    left = torch.ones(GEMM, GEMM, dtype=DTYPES[precision], device=device)
    times = 1 if device.type == "cpu" else 20
    start = now(device)
    for _ in range(times):
        left @ left
    return times * 2.0 * GEMM**3 / (now(device) - start)


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median over rounds of these over those."""
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


def start(
    description: str | None, name: str, batch_size: int, rounds: int, sizes: Sequence[str]
) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=sizes, default="small")
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16", help="of our models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--settled", action="store_true", help="with what training commands set for their process")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run, not how fast")
    parser.add_argument("--out", type=Path, default=Path(f"runs/benchmarks/{name}.json"))
    return parser


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, made small by --quick, and set threads and seed."""
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.size, arguments.batch_size, arguments.rounds = "tiny", 8, 2
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.settled:
        configure_process()
    return arguments


def write(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write what was found below the settings, and say where."""
    settings = {
        name: str(value) if isinstance(value, Path | torch.device) else value for name, value in vars(arguments).items()
    }
    settings |= {"torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"settings": settings} | found, indent=2) + "\n")
    print(arguments.out)
