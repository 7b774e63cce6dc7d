"""Every file that the library writes has the mode that the umask gives a file of open()."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from mmpt.predecessors.conversion import convert
from mmpt.predecessors.predecessor_export import export_predecessor
from mmpt.processing.annotations.pair_writing import WRITERS, write_pairs
from mmpt.processing.generated_scenes.images import write_detector_scenes
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.merge import merge_stores
from mmpt.processing.store.parquet import read_parquet, write_parquet
from mmpt.processing.store.repair import repair_store
from mmpt.training.finetuning import finetune
from tests.factories import tasks as tiny_tasks
from tests.factories.examples import TOKENIZER
from tests.factories.sources import ListSource, tiny_regions
from tests.factories.training import tiny_model, tiny_trainer
from tests.mmpt.training import test_finetuning

UMASKS = (0o002, 0o022, 0o077)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def write_model(folder: Path) -> None:
    tiny_model().save_pretrained(folder, max_shard_size="5KB")
    MmptProcessor(MmptImageProcessor(), TOKENIZER).save_pretrained(folder)


def write_task_model(folder: Path) -> None:
    tiny_tasks.model("vqa").save_pretrained(folder)


def write_checkpoint(folder: Path) -> None:
    trainer = tiny_trainer(folder, tiny_model(), max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model()


def visual_bert() -> MmptSingleStreamForPreTraining:
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "region_feature_dim": 6, "max_position_embeddings": 16}
    return MmptSingleStreamForPreTraining(MmptSingleStreamConfig.visual_bert(**sizes))


def write_export_and_conversion(folder: Path) -> None:
    export_predecessor(visual_bert(), folder / "theirs", "visual_bert")
    convert(folder / "theirs", folder / "ours")


def write_stores(folder: Path) -> None:
    rows = [tiny_regions(number) for number in range(4)]
    for name, part in (("a", rows[:2]), ("b", [*rows[2:], "no image"])):
        fill_store(folder / name, ListSource(part), shard_bytes=1000)
    merge_stores([folder / "a", folder / "b"], folder / "merged")
    write_parquet(folder / "merged", folder / "parquet")
    read_parquet(folder / "parquet", folder / "again")
    shard = next((folder / "a").glob("shard*"))
    shard.write_bytes(shard.read_bytes()[:-8] + b"8 bytes!")
    repair_store(folder / "a", {row.image_id: row for row in rows[:2]})


def write_tables(folder: Path) -> None:
    folder.mkdir()
    for suffix in WRITERS:
        write_pairs(Dataset.from_dict({"text": ["a star"], "image_id": ["1"]}), folder / f"pairs{suffix}")


def write_scenes(folder: Path) -> None:
    write_detector_scenes(folder, 2, seed=0)


def write_fine_tuning(folder: Path) -> None:
    finetune(test_finetuning.recipe(folder.parent, "vqa", "--output_dir", str(folder), "--gallery", "2"))


FAST = (
    write_model, write_task_model, write_checkpoint, write_export_and_conversion, write_stores, write_tables,
    write_scenes,
)  # fmt: skip

CASES = [*((write, mask) for write in FAST for mask in UMASKS), (write_fine_tuning, 0o002)]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize(
    ("write", "mask"), CASES, ids=lambda value: oct(value) if isinstance(value, int) else value.__name__
)
def test_files_and_folders_have_the_mode_of_the_umask(tmp_path: Path, write: Callable[[Path], None], mask: int) -> None:
    torch.manual_seed(0)
    os.umask(mask)
    write(tmp_path / "out")
    paths = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    wrong = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777)
        for path in paths
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~mask
    }
    assert len(paths) > 2
    assert wrong == {}
