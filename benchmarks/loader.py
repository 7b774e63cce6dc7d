"""How long a step waits for its batch: a DataLoader over a region store on the disk, read, collated, carried over.

Without workers the wait is all of the work, in CPU time; with one it is what the worker leaves over, by the clock,
which says something only where a core is free for it.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.contenders import Contender, make_contenders
from benchmarks.measuring import parse, start, write
from benchmarks.workload import SIZES, make_pairs
from mmpt import PairDataset, RegionStore
from mmpt.processing.store.writer import RegionStoreWriter


def write_store(folder: Path, pairs: PairDataset) -> PairDataset:
    """Write the regions of a table in memory to a store and return the same table over it."""
    with RegionStoreWriter(folder, extractor={}) as store:
        for regions in pairs.regions.values():
            store.add(regions)
    return PairDataset(pairs.pairs, RegionStore.open(folder))


def wait(contender: Contender, pairs: Any, batch_size: int, workers: int) -> dict[str, float]:
    """Return medians over an epoch: the wait for a batch, and its share of wait and step, by CPU and by the clock.

    And what it takes to let go of the batch, whose memory a worker shares.
    """
    collate = contender.collator
    loader: Any = DataLoader(pairs, batch_size, collate_fn=collate, num_workers=workers, drop_last=True)
    clocks = {"cpu": time.process_time, "clock": time.perf_counter}
    waits: dict[str, list[float]] = {name: [] for name in clocks}
    shares: dict[str, list[float]] = {name: [] for name in clocks}
    releases: list[float] = []
    batches = iter(loader)
    for number in range(len(loader)):
        marks = {name: [clock()] for name, clock in clocks.items()}
        batch = next(batches)
        for name, clock in clocks.items():
            marks[name].append(clock())
        contender.collator = lambda _: batch  # type: ignore[assignment]  # noqa: B023
        contender.step([])
        for name, clock in clocks.items():
            begin, ready, end = [*marks[name], clock()]
            if number:  # workers start with the first
                waits[name].append(ready - begin)
                shares[name].append((ready - begin) / (end - begin))
        contender.collator = collate
        begin = time.process_time()
        batch = None
        releases.append(time.process_time() - begin)
    return {"release_ms": 1e3 * statistics.median(releases)} | {
        f"{name}_{what}": scale * statistics.median(values[name])
        for name in clocks
        for what, values, scale in (("wait_ms", waits, 1e3), ("share", shares, 1.0))
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table and write the JSON."""
    parser = start(__doc__, "loader", batch_size=32, rounds=8, sizes=sorted(SIZES))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    arguments = parse(parser, words)
    name = f"single/{arguments.precision}"
    contender = make_contenders([name], arguments.size, arguments.device)[name]
    count = arguments.batch_size * (arguments.rounds + 1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_store(Path(folder) / "store", make_pairs(count, min(count, 512)))
        for workers in arguments.workers:
            row = found[str(workers)] = wait(contender, pairs, arguments.batch_size, workers)
            print(f"{workers} workers: {row['cpu_wait_ms']:.1f} ms of CPU a step, {row['cpu_share']:.1%};", end=" ")
            print(f"{row['clock_wait_ms']:.1f} ms by the clock, {row['clock_share']:.1%};", end=" ")
            print(f"{row['release_ms']:.1f} ms of CPU to release it")
    write(arguments, {"workers": found})


if __name__ == "__main__":
    main()
