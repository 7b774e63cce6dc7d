"""Load what was pushed where mmpt is not installed, run it, save it again and load that: a process of its own.

python tests/runs/clean.py CASES OUT

CASES is a folder with cases.json, the batches and the expected outputs; OUT gets a folder for each model, and
result.json.
Nothing here, and nothing that this imports, may need mmpt.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor
from transformers.utils import cached_file


def difference(model: Any, cases: Path, name: str) -> float:
    """Return the largest difference from the outputs that the model had where it was trained."""
    expected = load_file(cases / f"{name}.outputs.safetensors")
    with torch.no_grad():
        given = model.eval()(**load_file(cases / f"{name}.batch.safetensors"))
    found = {key: value for key, value in given.items() if isinstance(value, torch.Tensor)}
    assert found.keys() == expected.keys(), (name, found.keys() ^ expected.keys())
    return max(float((value - expected[key]).abs().max()) for key, value in found.items())


def check_model(source: str, case: dict[str, str], cases: Path, out: Path) -> dict[str, Any]:
    """Load, run, save, load again; a remote class must come out each time."""
    loader = getattr(transformers, case["auto"])
    config = AutoConfig.from_pretrained(source, trust_remote_code=True)
    model = loader.from_pretrained(source, trust_remote_code=True)
    model.save_pretrained(out)
    again = loader.from_pretrained(out, trust_remote_code=True)
    return {
        "class": type(model).__name__,
        "module": type(model).__module__.split(".")[0],
        "config": type(config).__name__,
        "difference": difference(model, cases, case["name"]),
        "again": difference(again, cases, case["name"]),
        "auto_map": again.config.auto_map,
    }


def check_processor(source: str, out: Path) -> dict[str, Any]:
    """The same for the processor and the image processor in it."""
    rng = np.random.default_rng(0)
    regions = {"features": rng.random((3, 6), dtype=np.float32), "boxes": np.tile([0.1, 0.2, 0.5, 0.6], (3, 1))}
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    images = AutoImageProcessor.from_pretrained(source, trust_remote_code=True)
    processor.save_pretrained(out)
    again = AutoProcessor.from_pretrained(out, trust_remote_code=True)
    images.save_pretrained(out / "images")
    alone = AutoImageProcessor.from_pretrained(out / "images", trust_remote_code=True)
    batches = [each(text=["red star"], images=[regions], return_tensors="pt") for each in (processor, again)]
    batches += [each(regions, return_tensors="pt") for each in (images, alone)]
    return {
        "class": [type(each).__name__ for each in (processor, images, alone)],
        "max_regions": [processor.image_processor.max_regions, again.image_processor.max_regions, alone.max_regions],
        "same": all(torch.equal(value, batches[0][name]) for batch in batches for name, value in batch.items()),
        "regions": batches[0]["region_features"].shape[1],
    }


def run_card(source: str) -> str:
    """Return what the code of a pushed card prints."""
    card = Path(str(cached_file(source, "README.md"))).read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue()


def main(cases: Path, out: Path) -> None:
    """Check every case."""
    result: dict[str, Any] = {"mmpt": "mmpt" in sys.modules}
    for case in json.loads((cases / "cases.json").read_text()):
        folder = out / case["name"]
        if case["auto"] == "README.md":
            result[case["name"]] = run_card(case["source"])
        elif case["auto"] == "AutoProcessor":
            result[case["name"]] = check_processor(case["source"], folder)
        else:
            result[case["name"]] = check_model(case["source"], case, cases, folder)
    (out / "result.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
