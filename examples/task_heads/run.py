"""Every head on its generated task (recipes/tasks): what it reaches, and what it reaches without the text or the image.

By construction the best guess from one modality is chance; a head that is blind must not do better, or the task gives
its answers away. Retrieval's chance is one of the evaluation's images.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from examples.studies import Study

STREAMS = ("single", "dual")
BLANKS = ("text", "regions")


class Head(NamedTuple):
    """A task.

    Args:
        measure: that counts.
        chance: the best guess without the text, and without the regions.
        start: the task whose run of the same stream it goes on from, or None.
    """

    measure: str
    chance: tuple[float, float]
    start: str | None = None


HEADS = {
    "vqa": Head("vqa_accuracy", (12 / 54, (12 / 6 + 12 / 4 + 12 / 9 + 18 / 3) / 54)),
    "entailment": Head("accuracy", (1 / 3, 1 / 3), "vqa"),
    "statements": Head("accuracy", (1 / 2, 1 / 2), "vqa"),
    "nlvr2": Head("accuracy", (1 / 2, 1 / 2), "vqa"),
    "multiple_choice": Head("accuracy", (1 / 4, 1 / 4)),
    "grounding": Head("grounding_accuracy", (1 / 4, 1 / 4)),
    "phrases": Head("phrase_recall_at_1", (1 / 3, 1 / 3)),
    "retrieval": Head("text_to_image_recall_at_1", (1 / 100, 1 / 100)),
}


def run(study: Study, streams: tuple[str, ...], tasks: tuple[str, ...], blind_steps: int, weights: Path) -> None:
    """Do the runs that are not done."""
    for stream in streams:
        for task in tasks:
            recipe, start = f"recipes/tasks/{task}.yaml", HEADS[task].start
            keys: dict[str, Any] = {"stream": stream}
            if start is not None:
                keys["from_pretrained"] = str(weights / f"{start} {stream}")
            keep = weights / f"{task} {stream}" if task in {head.start for head in HEADS.values()} else None
            study.finetune(f"{task} {stream}", recipe, keys, keep)
            for blank in BLANKS:
                blind = {**keys, "blank": blank, "max_steps": blind_steps, "gallery": 0}
                study.finetune(f"{task} {stream} without-{blank}", recipe, blind)


def standard_error(chance: float, total: float) -> float:
    """Return the standard error of a share of so many cases that are right by chance."""
    return (chance * (1 - chance) / total) ** 0.5


def rows(runs: Mapping[str, Any]) -> list[tuple[str, str, float, list[tuple[float, float, float]]]]:
    """Return (task, stream, reached, for each blank (reached, chance, standard errors above it))."""
    found = []
    for task, head in HEADS.items():
        for stream in STREAMS:
            if f"{task} {stream}" not in runs:
                continue
            blind = []
            for blank, chance in zip(BLANKS, head.chance, strict=True):
                measures = runs.get(f"{task} {stream} without-{blank}", {}).get("measures")
                if measures is not None:
                    total = measures.get(f"{head.measure}_total", 1000)
                    value = measures[head.measure]
                    blind.append((value, chance, (value - chance) / standard_error(chance, total)))
            found.append((task, stream, runs[f"{task} {stream}"]["measures"][head.measure], blind))
    return found


def main(words: list[str] | None = None) -> None:
    """Run, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", nargs="+", default=list(STREAMS), choices=STREAMS)
    parser.add_argument("--tasks", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--blind-steps", type=int, default=500)
    parser.add_argument("--weights", type=Path, default=Path("runs/heads"), help="of runs that others go on from.")
    parser.add_argument("--out", type=Path, default=Path("runs/heads/results.json"))
    arguments, rest = parser.parse_known_args(words)
    study = Study(arguments.out, rest)
    run(study, tuple(arguments.streams), tuple(arguments.tasks), arguments.blind_steps, arguments.weights)
    print(f"{'task':18}{'stream':8}{'reached':>8}   without text, without regions (chance; standard errors above it)")
    for task, stream, reached, blind in rows(json.loads(arguments.out.read_text())["runs"]):
        cells = "".join(f"{value:8.3f} ({chance:.3f}; {above:+.1f})" for value, chance, above in blind)
        print(f"{task:18}{stream:8}{reached:8.3f}  {cells}")
    print(arguments.out)


if __name__ == "__main__":
    main()
