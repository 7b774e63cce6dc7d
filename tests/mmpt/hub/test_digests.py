"""A push compares what lies on the Hub with the folder, file by file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from mmpt.configuration.errors import MmptConnectionError
from mmpt.hub.push import push_folder
from tests.factories.loopback_hub import LoopbackHub


def saved_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": torch.arange(3.0)}, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def altering(hub: LoopbackHub, name: str) -> Callable[[str, str], bool]:
    """Return what changes one stored file before the client asks what lies there."""

    def drops(method: str, path: str) -> bool:
        if "/paths-info/" in path:
            for repo in hub.repos.values():
                files = repo["commits"][-1][1]
                content = hub.blobs[files[name]][:-1] + b"x"  # as long as before
                files[name] = hashlib.sha256(content).hexdigest()
                hub.blobs[files[name]] = content
        return False

    return drops


@pytest.mark.parametrize("name", [None, "config.json", "model.safetensors", "README.md"])
def test_a_file_that_is_another_on_the_hub_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    folder = saved_folder(tmp_path / "saved")
    with LoopbackHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        if name is None:
            assert push_folder(folder, "tester/whole", token="hf_token").startswith(f"{hub.url}/tester/whole/tree/")
            return
        hub.drops = altering(hub, name)
        with pytest.raises(MmptConnectionError, match=f"{name} in tester/other is not what .* push again"):
            push_folder(folder, "tester/other", token="hf_token")
