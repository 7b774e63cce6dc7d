"""What pre-training is worth: labelled examples against accuracy, and which objectives it takes.

Encoders are pre-trained with some of the objectives, the same steps, and each is fine-tuned on the same few rows of two
downstream tasks of generated scenes, as in the table of UNITER's paper. One of them, and random
weights, then learn the tasks from growing numbers of labelled rows; every run has the same number of steps.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.studies import Study
from mmpt.recipe.recipe import load_recipe
from mmpt.training.pretraining import pretrain

METRICS = {"vqa": "vqa_accuracy", "statements": "accuracy"}
BAR = 0.85
ROWS = {
    "vqa": {"pre-trained": (500, 1000, 2000), "random": (1000, 2000, 4000, 8000)},
    "statements": {"pre-trained": (500, 1000, 2000, 4000), "random": (2000, 4000, 8000, 16000)},
}
STARTS = ("pre-trained", "random")
OBJECTIVES = {
    "MLM": ("mlm",),
    "MLM + ITM": ("mlm", "itm"),
    "MLM + ITM + MRC": ("mlm", "itm", "mrc"),
    "MLM + ITM + MRC-KL": ("mlm", "itm", "mrc_kl"),
    "MLM + ITM + MRFR": ("mlm", "itm", "mrfr"),
    "all five": ("mlm", "itm", "mrc", "mrc_kl", "mrfr"),
}
CHOSEN = "MLM + ITM"
"""The encoder whose curves are drawn."""
RECIPES = Path(__file__).parent


def encoder(name: str, folder: Path, steps: int, scenes: int) -> Path:
    """Return the folder of an encoder, pre-trained if it is not there."""
    out = folder / name.replace(" + ", "-").replace(" ", "-").lower()
    if not (out / "metrics.json").is_file():
        weights = "{" + ", ".join(f"{objective}: 1.0" for objective in OBJECTIVES[name]) + "}"
        words = ["--objective_weights", weights, "--max_steps", str(steps), "--train_scenes", str(scenes)]
        decay = f"{{num_decay_steps: {steps * 3 // 8}}}"
        words += [
            "--output_dir",
            str(out),
            "--lr_scheduler_kwargs",
            decay,
            "--save_strategy",
            "no",
            "--eval_strategy",
            "no",
        ]
        pretrain(load_recipe(RECIPES / "pretrain.yaml", [*words, "--disable_tqdm", "true", "--overwrite"]))
    return out


def measure_curves(study: Study, pretrained: Path, seeds: int) -> None:
    """Fine-tune on growing numbers of rows from both starts."""
    for seed in range(seeds):
        for task in METRICS:
            for start, counts in ROWS[task].items():
                for count in counts:
                    keys: dict[str, Any] = {"train_rows": count, "training.seed": seed}
                    if start == "pre-trained":
                        keys["from_pretrained"] = str(pretrained)
                    study.finetune(f"{task}/{start}/{count}/{seed}", RECIPES / f"{task}.yaml", keys)


def measure_objectives(study: Study, encoders: Mapping[str, Path], rows: int) -> None:
    """Fine-tune each encoder, and random weights, on both tasks."""
    for name, pretrained in encoders.items():
        for task in METRICS:
            keys = {"train_rows": rows, "training.seed": 0, "from_pretrained": str(pretrained)}
            study.finetune(f"objectives/{name}/{task}", RECIPES / f"{task}.yaml", keys)
    for task in METRICS:
        study.finetune(f"objectives/none/{task}", RECIPES / f"{task}.yaml", {"train_rows": rows, "training.seed": 0})


def curves(runs: Mapping[str, Any]) -> dict[tuple[str, str], dict[int, list[float]]]:
    """Return the metric of each seed by number of rows, for each task and start."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for name, one in runs.items():
        if name.startswith("objectives/"):
            continue
        task, start, rows, _ = name.split("/")
        found.setdefault((task, start), {}).setdefault(int(rows), []).append(one["measures"][METRICS[task]])
    return found


def rows_needed(curve: Mapping[int, list[float]]) -> float | None:
    """Return the rows at which a curve of means first reaches the bar, on a line between logarithms; None if never."""
    before: tuple[int, float] | None = None
    for rows, values in sorted(curve.items()):
        mean = sum(values) / len(values)
        if mean >= BAR:
            if before is None:
                return rows
            share = (BAR - before[1]) / (mean - before[1])
            return before[0] * (rows / before[0]) ** share
        before = (rows, mean)
    return None


def plot(runs: Mapping[str, Any], png: Path) -> None:
    """Draw a panel for each task: accuracy over labelled rows, from both starts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    titles = {"vqa": "Questions", "statements": "Statements, true or false"}
    for panel, task in zip(panels, METRICS, strict=True):
        for start, colour in zip(STARTS, ("#4477AA", "#CC3311"), strict=True):
            curve = sorted(curves(runs).get((task, start), {}).items())
            rows = [count for count, _ in curve]
            panel.plot(rows, [sum(v) / len(v) for _, v in curve], "o-", color=colour, label=f"{start} weights")
            for count, values in curve:
                panel.plot([count] * len(values), values, ".", color=colour, alpha=0.5)
        panel.axhline(BAR, color="#555555", linestyle="--", linewidth=1)
        panel.set(title=titles[task], xscale="log", xlabel="labelled examples", ylim=(0, 1.02))
        counts = sorted({count for start in STARTS for count in curves(runs).get((task, start), {})})
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.set_xticks([], minor=True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on scenes never seen")
    panels[0].legend(frameon=False, loc="lower right")
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=140)
    plt.close(figure)


def main(words: list[str] | None = None) -> None:
    """Run, print and write the JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000, help="of pre-training.")
    parser.add_argument("--scenes", type=int, default=8000, help="of pre-training.")
    parser.add_argument("--rows", type=int, default=1000, help="labelled rows of either task, for every encoder.")
    parser.add_argument("--out", type=Path, default=Path("runs/why-pretrain/results.json"))
    parser.add_argument("--plot", type=Path, help="PNG to draw.")
    arguments, rest = parser.parse_known_args(words)
    study, folder = Study(arguments.out, rest), arguments.out.parent
    encoders = {name: encoder(name, folder, arguments.steps, arguments.scenes) for name in OBJECTIVES}
    measure_objectives(study, encoders, arguments.rows)
    measure_curves(study, encoders[CHOSEN], arguments.seeds)
    runs = json.loads(arguments.out.read_text())["runs"]
    for (task, start), curve in curves(runs).items():
        needed = rows_needed(curve)
        print(f"{task:6}{start:14}{BAR} at {'-' if needed is None else round(needed)} rows", sorted(curve.items()))
    for name in (*OBJECTIVES, "none"):
        cells = [runs[f"objectives/{name}/{task}"]["measures"][metric] for task, metric in METRICS.items()]
        print(f"{name:22}" + "".join(f"{cell:8.3f}" for cell in cells))
    if arguments.plot:
        plot(runs, arguments.plot)
    print(arguments.out)


if __name__ == "__main__":
    main()
