"""What a push sends of a folder, and what it leaves behind and says."""

import ast
import json
import os
import stat
from pathlib import Path

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt import MmptImageProcessor, MmptProcessor
from mmpt.configuration.errors import MmptError, MmptFileNotFoundError, MmptValueError
from mmpt.hub.access_tokens import find_token
from mmpt.hub.push import check_folder, check_no_token
from mmpt.hub.pushed_files import CONFIGS, RUN, TOKENIZER, files_to_push, left_behind
from tests.factories.examples import TOKENIZER as WORDS
from tests.factories.models import tiny_pretraining

SECRET = "hf_" + "aB3" * 12
CHANCE = (
    ".env",
    ".git/config",
    ".ssh/id_ed25519",
    "#README.md#",
    ".README.md.swp",
    "README.md~",
    "README.md.bak",
    "__pycache__/layers.cpython-311.pyc",
    "_run.lock",
    "checkpoint-4/model.safetensors",
    "core",
    "credentials.json",
    "events.out.tfevents.1",
    "gallery.html",
    "id_rsa",
    "mlruns/0/meta.yaml",
    "model.ckpt",
    "model.safetensors.tmp",
    "notes.py",
    "nohup.out",
    "optimizer.pt",
    "predictions.jsonl",
    "pytorch_model.bin",
    "rng_state.pth",
    "runs/log.txt",
    "scheduler.pt",
    "secrets.yaml",
    "tokens.txt",
    "trainer_state.json",
    "training_args.bin",
    "wandb/run-1/config.yaml",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny_pretraining("single").save_pretrained(folder)
    MmptProcessor(MmptImageProcessor(), WORDS).save_pretrained(folder)
    for name in RUN:
        (folder / name).write_text("{}\n")
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_all_that_is_saved_is_pushed(saved: Path) -> None:
    assert files_to_push(saved) == sorted(path.name for path in saved.iterdir())
    assert left_behind(saved, files_to_push(saved)) == ""
    assert {"model.safetensors", "modeling_single_stream.py", "processing_mmpt.py", "tokenizer.json"} <= set(
        files_to_push(saved)
    )


def test_what_lies_there_by_chance_is_left_behind_and_counted(saved: Path, copied: Path) -> None:
    for name in CHANCE:
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text(SECRET)
    names = files_to_push(copied)
    assert names == files_to_push(saved)
    said = left_behind(copied, names)
    assert said.startswith(f"{len(CHANCE)} files left behind: #README.md#, .README.md.swp, .env, .git/, ")
    assert said.endswith(", ...")


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(st.text("abc.-_[]*?~ é", min_size=1, max_size=12), max_size=6, unique=True))
def test_a_file_with_any_other_name_is_left_behind(saved: Path, names: list[str]) -> None:
    added = [saved / name for name in names if not (saved / name).exists()]
    before = files_to_push(saved)
    for path in added:
        path.write_text("x")
    try:
        assert files_to_push(saved) == before
        assert left_behind(saved, before).startswith(f"{len(added)} file" if added else "")
    finally:
        for path in added:
            path.unlink()


def test_only_python_that_a_class_needs_is_pushed(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    pipelines = {"fill-regions": {"impl": "regions_pipeline.RegionsPipeline", "pt": ["AutoModel"]}}
    config |= {"custom_pipelines": pipelines, "other": {"auto_map": {"AutoModel": "me/other--elsewhere.Model"}}}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmptFileNotFoundError, match=r"lacks regions_pipeline\.py"):
        files_to_push(copied)
    (copied / "regions_pipeline.py").write_text("from .first_part import x\nimport numpy\n")
    (copied / "first_part.py").write_text("from .second_part import y\nfrom ..outside import z\n")
    (copied / "second_part.py").write_text("from .first_part import x\n")
    (copied / "train.py").write_text("from .first_part import x\n")
    assert {"regions_pipeline.py", "first_part.py", "second_part.py"} <= set(files_to_push(copied))
    assert "train.py" not in files_to_push(copied)


def test_links_stay_in_the_folder(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text(SECRET)
    (copied / "README.md").unlink()
    (copied / "README.md").symlink_to(tmp_path / "outside.md")
    (copied / "metrics.json").unlink()
    (copied / "metrics.json").symlink_to(".env")
    (copied / ".env").write_text(SECRET)
    (copied / "LICENSE").unlink()
    (copied / "LICENSE").symlink_to("NOTICE")
    (copied / "sample.json").unlink()
    (copied / "sample.json").symlink_to("nowhere")
    (copied / "home").symlink_to(tmp_path)
    os.mkfifo(copied / "pipe")
    names = files_to_push(copied)
    assert "LICENSE" in names
    assert not {"README.md", "metrics.json", "sample.json"} & set(names)
    assert left_behind(copied, names) == "6 files left behind: .env, README.md, home, metrics.json, pipe, sample.json"
    check_folder(copied)
    (copied / "model.safetensors").rename(tmp_path / "blob")
    (copied / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(MmptValueError, match=r"is a link to .*blob, and links that leave the folder are never pushed"):
        check_folder(copied)


def test_shards_are_those_of_the_index(copied: Path) -> None:
    (copied / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert "model-00001-of-00002.safetensors" not in files_to_push(copied)
    index = copied / "model.safetensors.index.json"
    (copied / "model.safetensors").rename(copied / "model-00002-of-00002.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    names = files_to_push(copied)
    assert "model-00001-of-00002.safetensors" not in names
    assert {"model-00002-of-00002.safetensors", index.name} <= set(names)
    for content in (
        "[]",
        "{",
        "null",
        '{"weight_map": []}',
        '{"weight_map": {"a": "../id_rsa"}}',
        '{"weight_map": {"a": 3}}',
    ):
        index.write_text(content)
        with pytest.raises(MmptError, match=r"model\.safetensors\.index\.json"):
            files_to_push(copied)


def test_an_adapter_is_pushed_without_its_base(tmp_path: Path, copied: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(MmptFileNotFoundError, match=r"lacks the weights adapter_model\.safetensors"):
        check_folder(adapter)
    (copied / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"")
    check_folder(adapter)
    assert files_to_push(adapter) == ["adapter_config.json", "adapter_model.safetensors"]


def test_files_that_resuming_needs_are_pushed_only_where_asked(copied: Path) -> None:
    for name in ("optimizer.pt", "rng_state_0.pth", "scheduler.pt", "trainer_state.json", "complete.json", "id_rsa"):
        (copied / name).write_text("x")
    (copied / "pytorch_model_fsdp_0").mkdir()
    (copied / "pytorch_model_fsdp_0" / ".metadata").write_text("x")
    more = set(files_to_push(copied, resumable=True)) - set(files_to_push(copied))
    assert more == {
        "complete.json",
        "optimizer.pt",
        "pytorch_model_fsdp_0/.metadata",
        "rng_state_0.pth",
        "scheduler.pt",
        "trainer_state.json",
    }


def test_every_vocabulary_file_of_transformers_is_known() -> None:
    known, seen = {*TOKENIZER, *CONFIGS}, set()
    for path in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "VOCAB_FILES_NAMES":
                values = statement.value.values if isinstance(statement.value, ast.Dict) else []
                names = {each.value for each in values if isinstance(each, ast.Constant)}
                assert names <= known, path
                seen |= names
    assert {"vocab.txt", "vocab.json", "merges.txt", "tokenizer.json"} <= seen


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Bearer {SECRET}",
        "https://me:pass@huggingface.co/me/model",
        f"https://user:{SECRET}@huggingface.co",
        "https://store.example/a.parquet?token=abc",
        "s3://bucket/a?X-Amz-Security-Token=abc&b=1",
        "ghp_" + "a1" * 18,
    ],
)
def test_tokens_are_found_in_what_is_pushed(copied: Path, text: str) -> None:
    assert find_token(text) is not None
    (copied / "recipe.yaml").write_text(f"training: {{run_name: '{text}'}}\n")
    with pytest.raises(MmptValueError, match=r"recipe\.yaml holds ") as raised:
        check_no_token(copied, files_to_push(copied), None)
    assert text not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["hf_hub", "https://huggingface.co/me/model", "a: b@c", "me@example.org", "12:30", "hf://me/x"]
)
def test_ordinary_text_holds_no_token(text: str) -> None:
    assert find_token(text) is None


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_weights_get_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        tiny_pretraining("single").save_pretrained(tmp_path, max_shard_size="10KB")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}, modes
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
