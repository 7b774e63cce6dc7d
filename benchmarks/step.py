"""What a pre-training step costs: both streams, each policy, beside LXMERT and VisualBERT of transformers.

One thread; process CPU time (on a GPU the clock's), a step of each contender in turn on the same pairs, medians over
rounds, gains as medians of the rounds' ratios. Compare numbers of one run only: those of a shared machine move from
run to run, ratios far less. Utilisation is useful FLOPs over time over the rate of a square matrix product, which is
measured in every round.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import OURS, PARTS, PEERS, Contender, make_contenders
from benchmarks.measuring import matmul_rate, median_ratio, parse, start, write
from benchmarks.workload import SIZES, make_pairs

MEASURED_ONCE = {
    ("small", "fp32"): {"UNITER": 26.3, "VOLTA": 11.7, "LXMERT": 16.9, "lxmert": 16.5, "visual_bert": 9.4},
    ("small", "bf16"): {"UNITER": 48.9, "VOLTA": 19.7, "LXMERT": 28.3, "lxmert": 30.1, "visual_bert": 19.1},
    ("base", "fp32"): {"UNITER": 2.4, "lxmert": 1.9},
}
"""Pairs a second, measured once on the predecessors' own code beside transformers' models, all on one core of one
machine: batch 32 (base: 16), 36 regions, captions. Only their ratios are used."""
UTILISATION_ONCE = {"UNITER": 0.51, "VOLTA": 0.24, "LXMERT": 0.31}
"""Of the fp32 matmul rate, in the same run at size small."""
RIVALS = {"UNITER": "single", "VOLTA": "single-joint", "LXMERT": "dual"}


def default_contenders(precision: str) -> list[str]:
    """Return ours in one precision, and theirs as shipped (fp32) and in the same precision."""
    theirs = [f"{name}/{one}" for one in dict.fromkeys(("fp32", precision)) for name in PEERS]
    return [f"{name}/{precision}" for name in OURS] + theirs


def measure(
    contenders: dict[str, Contender], pairs: Any, batch_size: int, rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Return for each contender medians of what a step costs, and the seconds of each of its steps."""
    device = next(iter(contenders.values())).device
    precisions = sorted({contender.precision for contender in contenders.values()})
    rates: dict[str, list[float]] = {precision: [] for precision in precisions}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    checks: dict[str, list[float]] = {name: [] for name in contenders}
    work: dict[str, list[float]] = {name: [] for name in contenders}
    tokens = [0] * (rounds + 1)  # of a round's batch
    for number in range(rounds + 1):  # the first one warms up
        first = number * batch_size % len(pairs)
        examples = [pairs[row] for row in range(first, first + batch_size)]
        for precision in precisions:
            rates[precision].append(matmul_rate(precision, device))
        for name, contender in contenders.items():
            seconds, batch = contender.step(examples)
            parts[name].append(seconds)
            checks[name].append(contender.check_seconds)
            work[name].append(contender.flops(batch))
            tokens[number] = int(batch["attention_mask"].sum() + batch["region_attention_mask"].sum())
    results, times = {}, {}
    for name, contender in contenders.items():
        steps = times[name] = [sum(step.values()) for step in parts[name][1:]]
        rate = statistics.median(rates[contender.precision])
        seconds = statistics.median(steps)
        row = {f"{part}_ms": 1e3 * statistics.median(step[part] for step in parts[name][1:]) for part in PARTS}
        row["checks_ms"] = 1e3 * statistics.median(checks[name][1:])
        row["pairs_per_second"] = batch_size / seconds
        row["tokens_per_second"] = statistics.median(tokens[1:]) / seconds
        row["utilisation"] = median_ratio(work[name][1:], steps) / rate
        row["gflop_per_pair"] = statistics.median(work[name][1:]) / batch_size / 1e9
        row["matmul_gflops"] = rate / 1e9
        results[name] = row
    return results, times


def gains(results: dict[str, dict[str, float]], times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return how many times as fast ours are as each of the others: the lower of two estimates."""
    found = {}
    for ours in times:
        others = {}
        for name in times:
            if ours.split("/")[0] in OURS and name != ours:
                by_median = results[ours]["pairs_per_second"] / results[name]["pairs_per_second"]
                others[name] = min(by_median, median_ratio(times[name], times[ours]))
        if others:
            found[ours] = others
    return found


def estimates(size: str, results: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return estimated gains over predecessors whose own code does not run here.

    Through each of transformers' models that was measured in this run, times the ratio once measured between it and the
    predecessor; and through the utilisation once measured, at this machine's matmul rate.
    """
    rows = []
    for rival, kind in RIVALS.items():
        ours = next((name for name in results if name.split("/")[0] == kind), None)
        if ours is None:
            continue
        speed = results[ours]["pairs_per_second"]
        for name, row in results.items():
            peer, precision = name.split("/")
            known = MEASURED_ONCE.get((size, precision), {})
            if peer in PEERS and rival in known and peer in known:
                theirs = row["pairs_per_second"] * known[rival] / known[peer]
                rows.append({"rival": f"{rival}/{precision}", "ours": ours, "through": name, "gain": speed / theirs})
        rate = next((row["matmul_gflops"] for name, row in results.items() if name.endswith("/fp32")), None)
        if size == "small" and rate is not None:
            plain = next((row for name, row in results.items() if name.split("/")[0] == kind.split("-")[0]), None)
            if plain is not None:
                theirs = UTILISATION_ONCE[rival] * rate / plain["gflop_per_pair"]
                rows.append({"rival": f"{rival}/fp32", "ours": ours, "through": "utilisation", "gain": speed / theirs})
    return rows


def plot(results: dict[str, dict[str, float]], title: str, png: Path) -> None:
    """Draw where the time of a pair goes, a bar for each contender, and the utilisation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(results)[::-1]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 0.42 * len(names) + 1.6), sharey=True, width_ratios=(3, 1), layout="constrained"
    )
    edges = [0.0] * len(names)
    whole = [sum(results[name][f"{part}_ms"] for part in PARTS) for name in names]
    # Milliseconds of a pair: what the parts are of the step, times the time of a pair.
    scale = [1e3 / results[name]["pairs_per_second"] / total for name, total in zip(names, whole, strict=True)]
    for part, colour in zip(PARTS, ("#EE6677", "#4477AA", "#66CCEE", "#CCBB44"), strict=True):
        widths = [results[name][f"{part}_ms"] * factor for name, factor in zip(names, scale, strict=True)]
        left.barh(names, widths, left=edges, color=colour, label=part)
        edges = [edge + width for edge, width in zip(edges, widths, strict=True)]
    for place, name in enumerate(names):
        left.text(edges[place], place, f" {results[name]['pairs_per_second']:.1f} pairs/s", va="center", fontsize=8)
        share = results[name]["utilisation"]
        right.barh(name, share, color="#228833")
        right.text(share, place, f" {100 * share:.0f} %", va="center", fontsize=8)
    left.set(xlabel="milliseconds of one core for a pair", title=title, xlim=(0, 1.18 * max(edges)))
    right.set(xlabel="of the matmul rate", xlim=(0, 1), title="utilisation")
    left.legend(loc="lower right", frameon=False, fontsize=8)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=140)
    plt.close(figure)


def show(results: dict[str, dict[str, float]]) -> None:
    """Print a row for each contender."""
    print(f"{'contender':20}{'pairs/s':>9}{'tokens/s':>10}" + "".join(f"{part + ' ms':>14}" for part in PARTS), end="")
    print(f"{'collate':>9}{'checks':>8}{'of matmul rate':>16}")
    for name, row in results.items():
        total = sum(row[f"{part}_ms"] for part in PARTS)
        print(f"{name:20}{row['pairs_per_second']:9.1f}{row['tokens_per_second']:10.0f}", end="")
        print("".join(f"{row[f'{part}_ms']:14.1f}" for part in PARTS), end="")
        print(f"{row['collate_ms'] / total:9.1%}{row['checks_ms'] / total:8.2%}{row['utilisation']:16.1%}")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print tables, write the JSON and the plot."""
    parser = start(__doc__, "step", batch_size=32, rounds=6, sizes=sorted(SIZES))
    parser.add_argument("--contenders", nargs="+", metavar="MODEL/PRECISION", help="all by default")
    parser.add_argument("--attention", choices=["eager", "sdpa", "flex_attention", "flash_attention_2"], default="sdpa")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--regions", choices=["36", "adaptive"], default="36")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    arguments = parse(parser, words)
    names = arguments.contenders or default_contenders(arguments.precision)
    contenders = make_contenders(names, arguments.size, arguments.device, arguments.attention, arguments.compile)
    regions = None if arguments.regions == "adaptive" else int(arguments.regions)
    pairs = make_pairs(arguments.batch_size * 8, 64, regions_per_image=regions)
    results, times = measure(contenders, pairs, arguments.batch_size, arguments.rounds)
    show(results)
    compared = gains(results, times)
    for ours, others in compared.items():
        print(f"{ours} is faster by:", "  ".join(f"{name} {gain:.2f}x" for name, gain in others.items()))
    estimated = estimates(arguments.size, results)
    for row in estimated:
        print(f"estimated: {row['ours']} over {row['rival']} {row['gain']:.1f}x, through {row['through']}")
    if arguments.plot:
        plot(results, f"Step at size {arguments.size}, batch {arguments.batch_size}", arguments.plot)
    write(arguments, {"contenders": results, "gains": compared, "estimates": estimated})


if __name__ == "__main__":
    main()
