"""Make the packaged example again from runs of recipes/tiny.yaml: `python -m mmpt.example.packing SINGLE DUAL`.

mmpt pretrain tiny --output_dir runs/single
mmpt pretrain tiny --stream dual --output_dir runs/dual
python -m mmpt.example.packing runs/single runs/dual
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save

from mmpt.configuration.errors import MmptError, MmptFileNotFoundError, MmptValueError
from mmpt.example.loading import FOLDER, STREAMS, write_regions
from mmpt.processing.generated_scenes.corpus import GeneratedScenes, fit_scene_classifier, scene_regions
from mmpt.processing.generated_scenes.scenes import render
from mmpt.processing.generated_scenes.texts import ATTRIBUTE_WORDS

KEPT = ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
"""Files of a run that the package takes as they are, where the run has them."""
USE = """## Use

```python
from mmpt import load_example

pipeline, scenes = load_example("{stream}")
print(pipeline.fill_mask(scenes[0].text, scenes[0].regions, top_k=1))
```

The weights are stored in half precision and loaded in single; the measures below are those before rounding.

"""
PICTURES = ("curves.png", "example.png")
SCENES = {3: "colour", 10: "colour", 19: "shape"}
"""Rows of the corpus with the kind of word that is masked; chosen by hand among 24: the model is right about each."""
SCENE_SEED = 1  # the recipe has seed 0
NOT_PACKAGED = ("auto_map", "custom_pipelines")
"""Entries of config.json that name code beside the weights; the package itself is the code."""


def pack_model(run: Path, out: Path) -> None:
    """Copy the model of a run with its processor, card and metrics; weights in half precision, loaded in single.

    Raises:
        MmptFileNotFoundError: if the folder is not of a finished run.
        MmptValueError: if a weight is too large for half precision.
    """
    for name in ("model.safetensors", "config.json", "metrics.json"):
        if not (run / name).is_file():
            raise MmptFileNotFoundError(f"{run} has no {name}, expected the folder of a finished run")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    weights = {name: weight.half() for name, weight in load_file(run / "model.safetensors").items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise MmptValueError(f"{run}: {name} has numbers above 65504, which half precision cannot hold")
    (out / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))  # with the mode of the umask
    config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name not in NOT_PACKAGED} | {"dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for name in KEPT:
        if (run / name).is_file():
            shutil.copy(run / name, out / name)
    for name in PICTURES:
        if (run / name).is_file():
            with Image.open(run / name) as picture:  # 256 colours: pixel noise would take most of its bytes
                picture.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE).save(out / name, optimize=True)
    if (run / "README.md").is_file():
        card = (run / "README.md").read_text(encoding="utf-8")
        (out / "README.md").write_text(packaged_card(card, out.name), encoding="utf-8")
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (out / name).is_file():
            processor = _without_code(json.loads((out / name).read_text(encoding="utf-8")))
            (out / name).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def packaged_card(card: str, name: str) -> str:
    """Return a run's card with the title and the code of a packaged model."""
    stream = name.removesuffix("-stream")
    card = re.sub(r"^# .*$", f"# The packaged model, {stream} stream", card, count=1, flags=re.MULTILINE)
    use = USE.format(stream=stream)
    return re.sub(r"^## Use\n.*?(?=^## Training)", lambda _: use, card, count=1, flags=re.MULTILINE | re.DOTALL)


def pack_scenes(out: Path) -> None:
    """Render scenes that no recipe has seen, with their regions and a caption in which one word is masked."""
    corpus = GeneratedScenes.build(train_scenes=1, eval_scenes=24, seed=SCENE_SEED, statements=0.0)
    classifier = fit_scene_classifier(0)  # that of the recipe
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = []
    for number, (index, kind) in enumerate(SCENES.items()):
        row = corpus.evaluation[index]
        scene, words = corpus.scenes[row["image_id"]], row["text"].split()
        place = next(n for n, word in enumerate(words) if ATTRIBUTE_WORDS.get(word) == kind)
        masked = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        name = f"scene-{number}"
        render(scene).save(out / f"{name}.png", optimize=True)
        write_regions(out / f"{name}.npz", scene_regions(name, scene, corpus.found[row["image_id"]], classifier))
        rows.append({"file": f"{name}.png", "text": masked, "word": words[place]})
    (out / "scenes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Pack the models of two runs and the scenes."""
    if len(arguments) != len(STREAMS):
        raise MmptValueError(f"got {len(arguments)} arguments, expected the run folders of {' and '.join(STREAMS)}")
    for stream, run in zip(STREAMS, arguments, strict=True):
        pack_model(Path(run), FOLDER / f"{stream}-stream")
    pack_scenes(FOLDER / "scenes")


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_code(each) for name, each in value.items() if name not in NOT_PACKAGED}
    return value


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MmptError as error:
        sys.exit(f"error: {error}")
