"""Every public class pushed, downloaded where mmpt is not installed, run, saved, loaded again, by the real client."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers
from safetensors.torch import load_file

import mmpt
from mmpt import MmptProcessor
from mmpt.configuration.self_contained import LICENCE
from mmpt.training.checkpoints import why_incomplete
from tests.factories.clean_environment import make_site, run_clean
from tests.factories.hub_saved import outputs_of
from tests.factories.loopback_hub import LoopbackHub
from tests.factories.paths import ROOT

TOLERANCE = 1e-6


class Pushed(NamedTuple):
    """What was pushed, what the client said, what came out where mmpt is not installed, and the folders of all that."""

    hub: LoopbackHub
    said: dict[str, Any]
    result: dict[str, Any]
    cases: Path
    out: Path


class Breaking:
    """Break the commits to one repository, and the first commit to another."""

    def __init__(self) -> None:
        self.first = True

    def __call__(self, method: str, path: str) -> bool:
        if path.endswith("/commit/main") and "/tester/dropped-once" in path and self.first:
            self.first = False
            return True
        return path.endswith("/commit/main") and "/tester/dropped/" in path


def run(command: list[str], cwd: Path, **environment: str) -> None:
    settings = {
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_token",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | settings | {"HF_HOME": str(cwd / "home")} | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("hub")
    cases, out = folder / "cases", folder / "out"
    cases.mkdir()
    out.mkdir()
    with LoopbackHub() as hub:
        hub.drops = Breaking()
        run([str(ROOT / "tests" / "runs" / "hub_models.py"), str(cases)], folder, HF_ENDPOINT=hub.url)
        site = make_site(folder / "site")
        script = ROOT / "tests" / "runs" / "clean.py"
        done = run_clean(script, cases, out, site=site, cwd=folder, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr[-4000:]
        result = json.loads((out / "result.json").read_text())
        yield Pushed(hub, json.loads((cases / "said.json").read_text()), result, cases, out)


def code_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def test_every_class_gives_the_same_outputs_where_mmpt_is_not_installed(pushed: Pushed) -> None:
    models = {name: found for name, found in pushed.result.items() if name not in ("mmpt", "processor", "run")}
    assert not pushed.result["mmpt"]
    # Both streams: backbone, pre-training, seven tasks; UNITER, LXMERT; in shards; pushed by the Trainer.
    assert len(models) == 18 + 2 + 2
    public = {name for name in mmpt.__all__ if re.match(r"Mmpt(Single|Dual)Stream(Model|For)", name)}
    assert {found["class"] for found in models.values()} == public
    for name, found in models.items():
        assert found["module"] == "transformers_modules", name
        assert max(found["difference"], found["again"]) <= TOLERANCE, name


def test_a_processor_works_where_mmpt_is_not_installed(pushed: Pushed) -> None:
    found = pushed.result["processor"]
    assert found["class"] == ["MmptProcessor", "MmptImageProcessor", "MmptImageProcessor"]
    assert found["max_regions"] == [2, 2, 2]
    assert (found["same"], found["regions"]) == (True, 2)
    assert MmptProcessor.from_pretrained(pushed.out / "processor").image_processor.max_regions == 2


def test_what_was_saved_there_loads_here_without_the_flag_and_with_it(pushed: Pushed) -> None:
    for case in json.loads((pushed.cases / "cases.json").read_text()):
        if not case["auto"].startswith("AutoModel"):
            continue
        loader = getattr(transformers, case["auto"])
        for flag in ({}, {"trust_remote_code": True}) if case["name"] in ("single-Grounding", "uniter") else ({},):
            model = loader.from_pretrained(pushed.out / case["name"], **flag)
            assert type(model).__module__.startswith("mmpt."), case["name"]
            expected = load_file(pushed.cases / f"{case['name']}.outputs.safetensors")
            given = outputs_of(model.eval(), load_file(pushed.cases / f"{case['name']}.batch.safetensors"))
            assert max(float((given[name] - value).abs().max()) for name, value in expected.items()) <= TOLERANCE


def test_code_is_the_source_with_licence_and_version_and_does_not_grow(pushed: Pushed) -> None:
    sources = {
        path.name: path
        for room in ("configuration", "modeling_mmpt", "processing")
        for path in (ROOT / room).glob("*.py")
    }
    for name in ("single-pretraining", "dual-Grounding", "processor"):
        files = pushed.hub.files(f"models/tester/{name}")
        code = {path: content for path, content in files.items() if path.endswith(".py")}
        assert code == code_of(pushed.out / name)
        for path, content in code.items():
            lines = content.decode().splitlines()
            assert "Licensed under the Apache License, Version 2.0." in lines[0]
            assert lines[1] == f"# From mmpt {mmpt.__version__}; written by save_pretrained."
            theirs = sources[path].read_text().removeprefix(LICENCE).splitlines()
            for ours, own in zip(lines[2:], theirs, strict=True):
                assert ours == own or (own.lstrip().startswith("from mmpt.") and ours.lstrip().startswith("from ."))


def test_shards_go_up_and_come_down(pushed: Pushed) -> None:
    files = pushed.hub.files("models/tester/sharded")
    assert sum(path.startswith("model-0") for path in files) > 2
    assert "modeling_single_stream.py" in files


def test_the_trainer_pushes_each_save_whole(pushed: Pushed) -> None:
    assert [title for title in pushed.said["commits"] if "step" in title and not title.endswith("checkpoint")] == [
        "Training in progress, step 4",
        "Training in progress, step 2",
    ]
    first = next(files for _, files in pushed.hub.repos["models/tester/trainer"]["commits"] if files)
    assert {"model.safetensors", "config.json", "modeling_single_stream.py", "processing_mmpt.py"} <= set(first)


def test_litter_is_left_behind_and_said(pushed: Pushed) -> None:
    assert "files left behind: .env, " in pushed.said["run"][1]
    allowed = {"models/tester/trainer": {"last-checkpoint/optimizer.pt"}}
    for name, repo in pushed.hub.repos.items():
        sent = {path for _, files in repo["commits"] for path in files}
        litter = {path for path in sent if path.endswith((".env", "id_rsa", "optimizer.pt", "train.py", "wandb"))}
        assert litter == allowed.get(name, set()), name
        assert not any("wandb" in path for path in sent), name
        secrets = [path for path, digest in repo["commits"][-1][1].items() if pushed.hub.blobs[digest] == b"a secret"]
        assert not secrets, name


def test_the_last_checkpoint_is_pushed_complete(pushed: Pushed, tmp_path: Path) -> None:
    for path, content in pushed.hub.files("models/tester/trainer").items():
        if path.startswith("last-checkpoint/"):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    assert why_incomplete(tmp_path / "last-checkpoint") is None


def test_no_file_of_a_run_holds_the_token(pushed: Pushed) -> None:
    assert pushed.said["tokens"] == []
    assert pushed.said["run tokens"] == []
    assert not any(b"hf_token" in content for content in pushed.hub.blobs.values())


def test_a_private_repository_is_there_for_its_owner_alone(pushed: Pushed) -> None:
    repo = pushed.hub.repos["models/tester/private"]
    assert repo["private"]
    assert pushed.said["private"] == f"{pushed.hub.url}/tester/private/tree/{repo['commits'][-1][0]}"
    script = "from transformers import AutoConfig\nAutoConfig.from_pretrained('tester/private', trust_remote_code=True)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_ENDPOINT": pushed.hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(pushed.out / "home")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "private repository" in done.stderr


def test_what_the_hub_refuses_is_said_and_not_counted_as_pushed(pushed: Pushed) -> None:
    said = pushed.said
    assert "error: the Hub does not accept the token for 'tester/refused'; log in with" in said["refused"]
    assert "error: this token may not write to 'tester/refused'" in said["read only"]
    assert said["refused"][:2] == said["read only"][:2] == "2 "
    assert "models/tester/refused" not in pushed.hub.repos
    assert "error: the connection broke while " in said["dropped"]
    assert "it does not count as pushed. Push again" in said["dropped"]
    assert pushed.hub.files("models/tester/dropped") == {}
    assert "the connection broke" in said["again"][0]
    assert said["again"][1].startswith(f"{pushed.hub.url}/tester/dropped-once/tree/")
    assert set(pushed.hub.files("models/tester/dropped-once")) == set(pushed.hub.files("models/tester/private"))


def test_a_run_pushes_itself_with_card_curves_and_code(pushed: Pushed) -> None:
    assert pushed.said["run"][0] == 0, pushed.said["run"][1]
    files = pushed.hub.files("models/tester/run")
    assert {"README.md", "sample.json", "curves.png", "recipe.yaml", "metrics.json", "processing_mmpt.py"} <= set(files)
    assert 'source = "tester/run"' in files["README.md"].decode()
    assert not [name for name in files if name.startswith("checkpoint-")]
    assert pushed.result["run"].strip()  # the card's code, where mmpt is not installed


def test_a_token_that_may_not_write_stops_a_run_before_it_trains(pushed: Pushed) -> None:
    code, message, logs = pushed.said["read only run"]
    assert code == 2
    assert "this token may not write to 'tester/run'" in message
    assert not logs


def test_a_store_goes_up_and_comes_back(pushed: Pushed) -> None:
    assert pushed.said["store"] == f"{pushed.hub.url}/datasets/tester/store"
    assert set(pushed.hub.files("datasets/tester/store")) == {
        "README.md",
        "data/regions-00000.parquet",
        "manifest.json",
    }


def test_a_folder_that_is_not_whole_is_not_pushed(pushed: Pushed) -> None:
    assert "has no config.json, expected a folder of save_pretrained" in pushed.said["no model"]
    assert "model-00002-" in pushed.said["damaged"]
    assert "is damaged" in pushed.said["damaged"]
    assert "lacks the weights model-00002-" in pushed.said["missing"]
    assert "models/tester/none" not in pushed.hub.repos
