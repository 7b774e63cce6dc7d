"""Loading runs no code of the source, prompts nobody, and no error advises allowing it."""

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained, reason_of, refuse_code
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from tests.factories.paths import ROOT

SOURCES = [
    path for room in ("configuration", "modeling_mmpt", "processing", "mmpt") for path in (ROOT / room).rglob("*.py")
]
OWN = ("RegionExtractor", "MmptPipeline")  # they load with load_pretrained
UNSAFE = ("weights_only", "allow_pickle", "trust_remote_code", "safe_globals", "torch.load")


class Code:
    def __reduce__(self) -> Any:
        return print, ("code from data was run",)


def calls(path: Path, name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [node for node in found if isinstance(node.func, ast.Attribute) and node.func.attr == name]


def test_every_from_pretrained_says_that_no_code_is_trusted() -> None:
    seen = 0
    for path in SOURCES:
        for name in ("from_pretrained", "from_config", "load_dataset", "from_single_file"):
            for call in calls(path, name):
                assert isinstance(call.func, ast.Attribute)
                owner = ast.unparse(call.func.value)
                if owner in OWN or owner == "super()":
                    continue
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("trust_remote_code") == "False", f"{path}:{call.lineno} use load_pretrained"
                seen += 1
    assert seen == 1  # load_pretrained's


def test_every_torch_load_reads_tensors_only() -> None:
    found = [call for path in SOURCES for call in calls(path, "load") if ast.unparse(call.func) == "torch.load"]
    assert found
    for call in found:
        assert {each.arg: ast.unparse(each.value) for each in call.keywords}.get("weights_only") == "True"


@pytest.mark.parametrize("kind", [AutoConfig, AutoTokenizer])
def test_a_folder_with_code_is_refused_without_a_question_or_advice(tmp_path: Path, kind: Any) -> None:
    reference = {"AutoConfig": "code.Config", "AutoTokenizer": ["code.Tokenizer", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unknown-type", "auto_map": reference}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": reference}))
    (tmp_path / "code.py").write_text("raise RuntimeError('code from data was run')\n")
    with pytest.raises(MmptValueError, match="is refused: it needs custom Python code") as raised:
        load_pretrained(kind, tmp_path)
    assert not any(word in str(raised.value) for word in UNSAFE)
    assert raised.value.__cause__ is None


def pickled(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_refused_pickles_do_not_advise_to_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Code()}, tmp_path / "saved.pt")
    files = [tmp_path / "saved.pt", *(pickled(tmp_path / f"{each}.pt", {"weight": Code()}, each) for each in range(6))]
    files += [tmp_path / "cut.pt", tmp_path / "text.pt", tmp_path / "empty.pt"]
    (tmp_path / "cut.pt").write_bytes((tmp_path / "saved.pt").read_bytes()[:-40])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    for file in files:
        with pytest.raises(MmptValueError) as raised:
            SourceCheckpoint(file)
        assert file.name in str(raised.value)
        assert not any(word in str(raised.value) for word in UNSAFE), file
        assert raised.value.__suppress_context__ or raised.value.__context__ is None  # no library's text is shown
        with pytest.raises((ValueError, RuntimeError, EOFError)) as refused, refuse_code(file):
            torch.load(file, weights_only=True)
        assert not any(word in str(refused.value) for word in UNSAFE), file
    assert "code from data" not in capsys.readouterr().out


def test_a_message_without_advice_is_kept() -> None:
    assert reason_of(ValueError("no module named torch.load; trust me.\nSecond line")) == (
        "no module named torch.load; trust me. Second line"
    )
    assert reason_of(ValueError("Object arrays cannot be loaded when allow_pickle=False")) == "ValueError"
    with pytest.raises(ValueError, match="plain"), refuse_code("x"):
        raise ValueError("plain")
