"""The studies in short: their command does its runs, writes measures, draws the figure, and does nothing twice."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from examples.fusion_study import run as fusion_study
from examples.task_heads import run as task_heads
from examples.why_pretrain import run as why_pretrain

SHORT = ["--max_steps", "1", "--warmup_steps", "0", "--train_rows", "16", "--evaluation_rows", "8", "--use_cpu", "true"]


def run(study: ModuleType, folder: Path, *words: str) -> dict[str, Any]:
    out = folder / "results.json"
    study.main(["--out", str(out), *words, *SHORT])
    return json.loads(out.read_text())["runs"]


@pytest.mark.parametrize("study", [fusion_study, why_pretrain, task_heads])
def test_results_that_are_kept_are_those_of_the_studys_own_runs(study: ModuleType) -> None:
    runs = json.loads((Path(study.__file__ or "").parent / "results.json").read_text())["runs"]
    if study is fusion_study:
        assert len(study.table(runs)) == len(study.TASKS) * len(study.STREAMS) * len(study.FUSIONS)
    elif study is why_pretrain:
        assert {task for task, _ in study.curves(runs)} == set(study.METRICS)
        assert {f"objectives/{name}/{task}" for name in study.OBJECTIVES for task in study.METRICS} <= set(runs)
    else:
        assert {task for task, *_ in study.rows(runs)} == set(study.HEADS)


def test_fusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fusion_study, "STREAMS", ("single",))
    monkeypatch.setattr(fusion_study, "TASKS", {"evidence": "need not be"})
    monkeypatch.setattr(fusion_study, "FUSIONS", ("hybrid",))
    runs = run(fusion_study, tmp_path, "--seeds", "1")
    assert set(runs) == {"evidence single hybrid 0"}
    measures = runs["evidence single hybrid 0"]["measures"]
    assert measures["accuracy_total"] == 8
    assert {"both_accuracy", "text_accuracy", "regions_weight"} <= set(measures)
    assert not any((tmp_path / "runs").iterdir())
    capsys.readouterr()
    assert run(fusion_study, tmp_path, "--seeds", "1") == runs
    assert "evidence single hybrid 0" not in capsys.readouterr().out  # done before


def test_what_pre_training_is_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why_pretrain, "METRICS", {"statements": "accuracy"})
    monkeypatch.setattr(why_pretrain, "OBJECTIVES", {"MLM + ITM": ("mlm", "itm")})
    monkeypatch.setattr(why_pretrain, "ROWS", {"statements": {"pre-trained": (8,)}})
    runs = run(why_pretrain, tmp_path, "--steps", "1", "--scenes", "16")
    names = {"statements/pre-trained/8/0", "objectives/MLM + ITM/statements", "objectives/none/statements"}
    assert set(runs) == names
    assert (tmp_path / "mlm-itm" / "model.safetensors").is_file()


def test_figures_are_drawn_from_the_results_that_are_kept(tmp_path: Path) -> None:
    for study in (fusion_study, why_pretrain):
        runs = json.loads((Path(study.__file__ or "").parent / "results.json").read_text())["runs"]
        study.plot(runs, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_heads_with_and_without_a_modality(tmp_path: Path) -> None:
    words = ["--streams", "single", "--tasks", "multiple_choice", "--blind-steps", "1"]
    runs = run(task_heads, tmp_path, *words, "--weights", str(tmp_path / "weights"))
    assert set(runs) == {f"multiple_choice single{end}" for end in ("", " without-text", " without-regions")}
    ((task, stream, _, blind),) = task_heads.rows(runs)
    assert (task, stream, len(blind)) == ("multiple_choice", "single", 2)
