"""Files of a saved folder; that it loads where mmpt is not installed is tested in test_hub.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from mmpt import MmptDualStreamForGrounding, MmptImageProcessor, MmptProcessor, MmptSingleStreamModel
from mmpt.configuration.self_contained import saved_class
from tests.factories.examples import TOKENIZER
from tests.factories.models import tiny_backbone, tiny_config


class OwnModel(MmptSingleStreamModel):
    """A subclass that a person wrote."""


def code_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")}


def test_a_folder_has_the_modules_that_its_class_needs_and_no_others(tmp_path: Path) -> None:
    tiny_backbone("single").save_pretrained(tmp_path / "model")
    code = code_in(tmp_path / "model")
    assert {"modeling_single_stream", "modeling_base", "layers", "configuration_mmpt", "self_contained"} <= code
    assert not {"modeling_dual_stream", "single_stream_tasks", "processing_mmpt"} & code
    MmptProcessor(MmptImageProcessor(), TOKENIZER).save_pretrained(tmp_path / "processor")
    names = {"processing_mmpt", "image_processing_mmpt", "regions", "self_contained", "errors"}
    assert code_in(tmp_path / "processor") == names


def test_saving_twice_changes_nothing(tmp_path: Path) -> None:
    model = tiny_backbone("dual")
    folders = [tmp_path / "one", tmp_path / "two"]
    model.save_pretrained(folders[0])
    again = AutoModel.from_pretrained(folders[0])
    again.save_pretrained(folders[1])
    again.save_pretrained(folders[1])
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two


def test_another_process_than_the_main_one_writes_nothing(tmp_path: Path) -> None:
    tiny_backbone("single").save_pretrained(tmp_path, is_main_process=False)
    assert code_in(tmp_path) == set()


def test_a_subclass_outside_of_the_package_is_saved_as_transformers_does(tmp_path: Path) -> None:
    config: Any = tiny_config("single")
    OwnModel(config).save_pretrained(tmp_path)
    assert code_in(tmp_path) == set()
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_the_class_that_fsdp_puts_in_front_is_seen_through() -> None:
    class FSDPModule:
        pass

    class FSDPMmptSingleStreamModel(FSDPModule, MmptSingleStreamModel):
        pass

    config: Any = tiny_config("single")
    assert saved_class(FSDPMmptSingleStreamModel(config)) is MmptSingleStreamModel


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_auto_model_gives_the_saved_class_if_there_is_no_specific_auto_class(stream: str, tmp_path: Path) -> None:
    config: Any = tiny_config("dual")
    MmptDualStreamForGrounding(config).save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), MmptDualStreamForGrounding)
    new: Any = AutoModel.from_config(tiny_config(stream))
    assert type(new).__name__ == f"Mmpt{stream.capitalize()}StreamModel"
