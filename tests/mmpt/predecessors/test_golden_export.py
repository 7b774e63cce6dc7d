"""Folders that older versions saved load with the outputs that they had then."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mmpt import MmptProcessor
from tests.factories.hub_saved import outputs_of
from tests.factories.paths import PREDECESSORS

FOLDERS = sorted(path.parent for path in (PREDECESSORS / "golden_export").glob("*/*/config.json"))
AUTO = {"pretraining": "AutoModelForPreTraining", "QuestionAnswering": "AutoModelForVisualQuestionAnswering"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_an_older_folder_gives_the_outputs_of_its_time(folder: Path) -> None:
    loader = getattr(transformers, AUTO[folder.name.partition("-")[2]])
    model, loading = loader.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = outputs_of(model.eval(), load_file(folder / "batch.safetensors"))
    expected = load_file(folder / "outputs.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, MmptProcessor)
    assert processor.image_processor.max_regions == 2
    assert processor.tokenizer("red star")["input_ids"]


def test_there_are_folders_of_both_streams() -> None:
    assert {folder.name.partition("-")[0] for folder in FOLDERS} == {"single", "dual"}
