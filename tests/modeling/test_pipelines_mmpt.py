"""transformers' own `pipeline()` on saved folders, with mmpt imported and without it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, pipeline
from transformers.utils import logging

from mmpt import MmptImageProcessor, MmptPipeline, MmptProcessor
from mmpt.modeling_mmpt.pipelines_mmpt import PIPELINES
from tests.factories.examples import TOKENIZER, random_regions
from tests.factories.models import tiny_pretraining
from tests.factories.task_models import tiny_task

REGIONS = [random_regions(count, seed=count, width=200, height=100) for count in (2, 3, 1)]
INPUTS = [
    {"text": text, "regions": each}
    for text, each in zip(("a [MASK] dog", "red [MASK]", "[MASK]"), REGIONS, strict=True)
]
FOLDERS = {
    "mmpt-fill-mask": "ForPreTraining",
    "mmpt-matching": "ForPreTraining",
    "mmpt-retrieval": "ImageAndTextRetrieval",
    "mmpt-visual-question-answering": "QuestionAnswering",
    "mmpt-text-classification": "SequenceClassification",
    "mmpt-grounding": "Grounding",
    "mmpt-feature-extraction": "Model",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved folder of each model that has a pipeline."""
    root = tmp_path_factory.mktemp("folders")
    pretraining = tiny_pretraining("single", attention="sdpa")
    models = {name: tiny_task("single", name) for name in FOLDERS.values() if name not in ("ForPreTraining", "Model")}
    for name, model in (models | {"ForPreTraining": pretraining, "Model": pretraining.backbone}).items():
        model.eval().save_pretrained(root / name)
        MmptProcessor(MmptImageProcessor(), TOKENIZER).save_pretrained(root / name)
    np.savez(root / "regions.npz", features=REGIONS[0].features, boxes=REGIONS[0].boxes)
    return root


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, float) else []


def test_every_pipeline_has_a_folder_here():
    assert set(FOLDERS) == set(PIPELINES)


@pytest.mark.parametrize("task", PIPELINES)
def test_a_list_a_batch_and_single_inputs_give_the_same(root: Path, task: str):
    pipe = pipeline(task, model=str(root / FOLDERS[task]), device="cpu")
    single = [pipe(each) for each in INPUTS]
    assert pipe(INPUTS) == single
    np.testing.assert_allclose(numbers(pipe(INPUTS, batch_size=2)), numbers(single), atol=1e-5)
    as_dict = {"features": REGIONS[0].features, "boxes": REGIONS[0].boxes}
    for regions in (as_dict, root / "regions.npz", str(root / "regions.npz")):
        np.testing.assert_allclose(numbers(pipe({**INPUTS[0], "regions": regions})), numbers(single[0]), atol=1e-6)


def test_the_numbers_are_those_of_the_pipeline_of_mmpt(root: Path):
    texts = [each["text"] for each in INPUTS]
    for task, name in (
        ("mmpt-fill-mask", "fill_mask"),
        ("mmpt-visual-question-answering", "answer"),
        ("mmpt-text-classification", "classify"),
    ):
        ours = MmptPipeline.from_pretrained(root / FOLDERS[task], device="cpu")
        theirs = pipeline(task, model=str(root / FOLDERS[task]), device="cpu")(INPUTS)
        np.testing.assert_allclose(numbers(theirs), numbers(getattr(ours, name)(texts, REGIONS)), atol=1e-5)
        assert ours(REGIONS, texts) == getattr(ours, name)(texts, REGIONS)
        assert ours(REGIONS[0]) is REGIONS[0]


def test_top_k_and_an_extractor_are_options(root: Path):
    pipe = pipeline("mmpt-fill-mask", model=str(root / "ForPreTraining"), device="cpu", top_k=2)
    assert [len(mask) for mask in pipe(INPUTS[0])] == [2]
    assert [len(mask) for mask in pipe(INPUTS[0], top_k=3)] == [3]
    picture = Image.new("RGB", (8, 8))
    assert pipe({"text": "a [MASK] dog", "image": picture}, extractor=lambda given: [REGIONS[0]]) == pipe(INPUTS[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a [MASK]", "got str for an input, expected a dict"),
        ({"text": 3, "regions": REGIONS[0]}, "text is 3, expected a string"),
        ({"text": "a [MASK]"}, "needs regions, or an image"),
        ({"text": "a [MASK]", "regions": REGIONS[0], "images": 1}, "has no 'images'"),
        ({"text": "a dog", "regions": REGIONS[0]}, r"has no \[MASK\]"),
        ({"text": "a [MASK]", "regions": "nowhere.npz"}, "nowhere.npz is no .npz file"),
        ({"text": "a [MASK]", "image": "photo.jpg"}, "does not record what made its regions"),
    ],
)
def test_wrong_inputs_are_refused(root: Path, given: Any, message: str):
    pipe = pipeline("mmpt-fill-mask", model=str(root / "ForPreTraining"), device="cpu")
    with pytest.raises((ValueError, TypeError), match=message):
        pipe(given)


def test_a_folder_of_another_task_is_refused(root: Path):
    with pytest.raises(ValueError, match=r"whose head would be random; choose .* mmpt-grounding"):
        pipeline("mmpt-fill-mask", model=str(root / "Grounding"), device="cpu")
    with pytest.raises(TypeError, match="has no option 'topk'"):
        pipeline("mmpt-matching", model=str(root / "ForPreTraining"), topk=3)


def test_the_stock_name_asks_for_trust_and_then_takes_regions(root: Path, monkeypatch: pytest.MonkeyPatch):
    folder = str(root / "ForPreTraining")
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline("fill-mask", model=folder)
    own = pipeline("mmpt-fill-mask", model=folder, device="cpu")(INPUTS[0])
    assert pipeline("fill-mask", model=folder, device="cpu", trust_remote_code=True)(INPUTS[0]) == own


def test_every_folder_answers_where_mmpt_is_not_installed(root: Path, tmp_path: Path):
    program = """
import sys
sys.modules["mmpt"] = None
import numpy as np
from transformers import AutoModelForMaskedLM, pipeline
root, *pairs = sys.argv[1:]
regions = dict(np.load(root + "/regions.npz"))
model = AutoModelForMaskedLM.from_pretrained(root + "/ForPreTraining", trust_remote_code=True)
assert "transformers_modules" in type(model).__module__
for pair in pairs:
    task, folder = pair.split("=")
    pipe = pipeline(task, model=root + "/" + folder, device="cpu", trust_remote_code=True)
    print(task, pipe({"text": "a [MASK] dog", "regions": regions}))
"""
    stock = {"fill-mask": "ForPreTraining", "visual-question-answering": "QuestionAnswering"}
    pairs = [f"{task}={folder}" for task, folder in (FOLDERS | stock).items()]
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), *pairs],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    own = pipeline("mmpt-fill-mask", model=str(root / "ForPreTraining"), device="cpu")
    expected = own({"text": "a [MASK] dog", "regions": str(root / "regions.npz")})
    assert done.stdout.splitlines()[0] == f"mmpt-fill-mask {expected}"
    assert len(done.stdout.splitlines()) == len(pairs)


def test_auto_classes_load_and_report_only_what_is_new(root: Path, caplog: pytest.LogCaptureFixture):
    masked = AutoModelForMaskedLM.from_pretrained(root / "ForPreTraining")
    assert type(masked).__name__ == "MmptSingleStreamForPreTraining"
    logging.enable_propagation()
    try:
        for folder in ("ForPreTraining", "QuestionAnswering"):
            caplog.clear()
            model, report = AutoModel.from_pretrained(root / folder, output_loading_info=True)
            assert type(model).__name__ == "MmptSingleStreamModel"
            assert not any(report.values())
            assert "LOAD REPORT" not in caplog.text
        _, report = AutoModelForSequenceClassification.from_pretrained(
            root / "ForPreTraining", output_loading_info=True
        )
        assert not report["unexpected_keys"]
        assert all(key.startswith("classifier.") for key in report["missing_keys"])
    finally:
        logging.disable_propagation()
