"""Early, late and hybrid fusion on a task where text and image must be read together, and on one where they need not.

Both streams, three seeds: 36 runs. Writes the measures, and with --plot the figure of README.md from them.

    python -m examples.fusion_study.run --plot examples/fusion_study/fusion.png
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.studies import Study, spread

TASKS = {
    "interaction": "must be read together (questions)",
    "evidence": "need not be (two hints at a class)",
}
MEASURES = {"interaction": "vqa_accuracy", "evidence": "accuracy"}
ALONE = {"interaction": 0.23, "evidence": 0.75}
"""The best that can be said from one modality, by construction of the tasks."""
FUSIONS = ("early", "late", "hybrid")
STREAMS = ("single", "dual")
FOLDER = Path(__file__).parent


def run(study: Study, seeds: int) -> None:
    """Do the runs that are not done."""
    for seed in range(seeds):
        for task in reversed(TASKS):
            for stream in STREAMS:
                for fusion in FUSIONS:
                    keys = {"stream": stream, "fusion": fusion, "training.seed": seed}
                    study.finetune(f"{task} {stream} {fusion} {seed}", FOLDER / f"{task}.yaml", keys)


def table(runs: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Return mean and deviation over seeds by (task, stream, fusion)."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for name, one in runs.items():
        task, stream, fusion, _ = name.split()
        found.setdefault((task, stream, fusion), []).append(one["measures"][MEASURES[task]])
    return {key: spread(values) for key, values in found.items()}


def plot(runs: Mapping[str, Any], png: Path) -> None:
    """Draw a panel for each task: a group of bars for each stream, a bar for each fusion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cells = table(runs)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for panel, (task, words) in zip(panels, TASKS.items(), strict=True):
        for place, fusion in enumerate(FUSIONS):
            means, deviations = zip(*(cells[task, stream, fusion] for stream in STREAMS), strict=True)
            places = [group + (place - 1) * 0.26 for group in range(len(STREAMS))]
            colour = ("#4477AA", "#CCBB44", "#228833")[place]
            panel.bar(places, means, 0.24, yerr=deviations, capsize=3, color=colour, label=fusion)
            for x, mean, deviation in zip(places, means, deviations, strict=True):
                panel.text(x, mean + deviation + 0.012, f"{mean:.2f}", ha="center", va="bottom", fontsize=8)
        panel.axhline(ALONE[task], color="#555555", linestyle="--", linewidth=1)
        panel.text(0.5, ALONE[task] + 0.03, "best of\none alone", ha="center", fontsize=7, color="#555555")
        panel.set(title=f"Text and image {words}", ylim=(0, 1.12), xlim=(-0.5, 1.5))
        panel.set_xticks(range(len(STREAMS)), [f"{stream} stream" for stream in STREAMS])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, [f"{label} fusion" for label in labels], loc="outside lower center", frameon=False, ncols=3)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=140)
    plt.close(figure)


def main(words: list[str] | None = None) -> None:
    """Run, print the table, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/fusion-study/results.json"))
    parser.add_argument("--plot", type=Path, help="PNG to draw.")
    arguments, rest = parser.parse_known_args(words)
    run(Study(arguments.out, rest), arguments.seeds)
    runs = json.loads(arguments.out.read_text())["runs"]
    for task in TASKS:
        for stream in STREAMS:
            cells = [table(runs)[task, stream, fusion] for fusion in FUSIONS]
            print(f"{task:12}{stream:8}" + "".join(f"{mean:8.3f} ± {deviation:.3f}" for mean, deviation in cells))
    if arguments.plot:
        plot(runs, arguments.plot)
    print(arguments.out)


if __name__ == "__main__":
    main()
