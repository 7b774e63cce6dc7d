"""The collator's share of a step, for images of 36 regions and of an adaptive number.

One thread, process CPU time: the collator and the step that uses its batch, medians over rounds.
"""

import statistics
from collections.abc import Sequence

from benchmarks.contenders import PARTS, make_contenders
from benchmarks.measuring import parse, start, write
from benchmarks.workload import SIZES, make_pairs


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table and write the JSON."""
    arguments = parse(start(__doc__, "collator", batch_size=32, rounds=8, sizes=sorted(SIZES)), words)
    kinds = [f"{kind}/{arguments.precision}" for kind in ("single", "single-joint", "dual")]
    contenders = make_contenders(kinds, arguments.size, arguments.device)
    found = {}
    for regions in (36, None):
        pairs = make_pairs(arguments.batch_size * 8, 64, regions_per_image=regions)
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for number in range(arguments.rounds + 1):
            first = number * arguments.batch_size % len(pairs)
            examples = [pairs[row] for row in range(first, first + arguments.batch_size)]
            for name, contender in contenders.items():
                steps[name].append(contender.step(examples)[0])
        for name, taken in steps.items():
            collate = statistics.median(step["collate"] for step in taken[1:])
            share = statistics.median(step["collate"] / sum(step[part] for part in PARTS) for step in taken[1:])
            found[f"{name}, {regions or 'adaptive'} regions"] = {"collate_ms": 1e3 * collate, "share": share}
    for name, row in found.items():
        print(f"{name:36}{row['collate_ms']:8.1f} ms{row['share']:8.1%} of a step")
    write(arguments, {"collator": found})


if __name__ == "__main__":
    main()
