"""Checkpoints as they are published: every container is read, none can run code."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmpt.predecessors.source_checkpoint import SourceCheckpoint

WEIGHTS = {"bert.a.weight": torch.arange(6.0).reshape(2, 3), "bert.a.bias": torch.ones(2)}


def assert_holds_the_weights(checkpoint: SourceCheckpoint) -> None:
    assert set(checkpoint) == set(WEIGHTS)
    assert len(checkpoint) == len(WEIGHTS)
    for key, tensor in WEIGHTS.items():
        assert checkpoint.shape(key) == tuple(tensor.shape)
        assert torch.equal(checkpoint[key], tensor)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pt", "w.pth", "w.th"])
def test_every_container_is_read(name: str, tmp_path: Path):
    path = tmp_path / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    assert_holds_the_weights(SourceCheckpoint(path))
    assert_holds_the_weights(SourceCheckpoint(tmp_path))


def test_files_of_old_torch_are_read(tmp_path: Path):
    torch.save(WEIGHTS, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert_holds_the_weights(SourceCheckpoint(tmp_path / "old.bin"))


@pytest.mark.parametrize("wrapper", ["model", "model_state_dict", "state_dict"])
def test_wrapped_weights_are_found(wrapper: str, tmp_path: Path):
    torch.save({wrapper: WEIGHTS, "epoch": 3}, tmp_path / "training.pt")
    assert_holds_the_weights(SourceCheckpoint(tmp_path / "training.pt"))


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_prefixes_and_old_names_of_norms_are_put_right(prefix: str, tmp_path: Path):
    torch.save({f"{prefix}n.gamma": torch.ones(2), f"{prefix}n.beta": torch.zeros(2)}, tmp_path / "w.bin")
    assert set(SourceCheckpoint(tmp_path)) == {"n.weight", "n.bias"}


def test_a_model_inside_a_model_is_unwrapped(tmp_path: Path):
    torch.save({"bert.bert.x": torch.ones(1), "bert.cls.y": torch.ones(1)}, tmp_path / "w.th")
    assert set(SourceCheckpoint(tmp_path)) == {"bert.x", "cls.y"}


def test_shards_are_read_through_their_index(tmp_path: Path):
    names = {}
    for number, (key, tensor) in enumerate(WEIGHTS.items()):
        save_file({key: tensor}, tmp_path / f"part-{number}.safetensors")
        names[key] = f"part-{number}.safetensors"
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert_holds_the_weights(SourceCheckpoint(tmp_path))
    index.write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(ValueError, match="names files outside its folder"):
        SourceCheckpoint(tmp_path)


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(zipped: bool, tmp_path: Path):
    made = tmp_path / "made-by-the-payload"
    file = tmp_path / "evil.pt"
    torch.save(WEIGHTS | {"x": Payload(made)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pt is refused: it contains more than tensors.*posix\.mkdir"):
        SourceCheckpoint(file)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a dict of tensors"),
        ({"a": torch.ones(1), "epoch": 3}, r"entries that are not tensors \('epoch'\)"),
        ({}, "expected a dict of tensors"),
    ],
)
def test_other_contents_are_named(content: Any, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        SourceCheckpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.9])
def test_damaged_files_are_named(name: str, kept: float, tmp_path: Path):
    path = tmp_path / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=name):
        SourceCheckpoint(path)


def test_a_folder_without_a_single_weight_file_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="has no weight file, expected"):
        SourceCheckpoint(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"has a\.pt, b\.pt, expected"):
        SourceCheckpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        SourceCheckpoint(tmp_path / "c.pt")


def test_a_broken_configuration_is_named(tmp_path: Path):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        SourceCheckpoint(tmp_path / "w.pt")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="contains a list, expected an object"):
        SourceCheckpoint(tmp_path / "w.pt")


def test_counting_refuses_gaps(tmp_path: Path):
    torch.save({"l.0.w": torch.ones(1), "l.2.w": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"l\.N for N in \[0, 2\]; expected all from 0"):
        SourceCheckpoint(tmp_path).count("l")
