"""The commands of docs/released-features.md, one after the other, with small random files under the released names."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import LxmertConfig, LxmertForQuestionAnswering
from typer.testing import CliRunner

from mmpt import RegionStore
from mmpt.commands.main import app
from tests.factories.bottom_up_files import draw_weights, photo, save_research_folder
from tests.factories.heads import config_of, mlp, with_heads
from tests.factories.paths import ROOT

PAGE = ROOT / "docs" / "released-features.md"
WIDTHS = ((8, 16), (8, 16), (16, 32), (16, 32))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it", "?"]
ANSWERS = {0: "yes", 1: "no", 2: "a cat"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write what the page begins with."""
    monkeypatch.chdir(tmp_path)
    save_research_folder(tmp_path / "frcnn-vg-finetuned", draw_weights(widths=WIDTHS, depths=(1, 1, 1, 1), rpn=16))
    (tmp_path / "photos").mkdir()
    photo(120, 90).save("photos/cat.png")
    photo(90, 120, 1).save("photos/dog.png")
    Path("photos/broken.png").write_bytes(b"no image")
    Path("questions.csv").write_text("image_id,question\ncat,What is it?\ndog,Is it?\n")
    torch.manual_seed(0)
    labels = {"id2label": ANSWERS, "label2id": {name: number for number, name in ANSWERS.items()}}
    sizes = dict(vocab_size=len(WORDS), hidden_size=16, num_attention_heads=2, intermediate_size=32, visual_feat_dim=32)
    config = LxmertConfig(**sizes, l_layers=1, x_layers=1, r_layers=1, num_qa_labels=len(ANSWERS), **labels)
    LxmertForQuestionAnswering(config).save_pretrained("lxmert-vqa")
    width = config_of("uniter")["hidden_size"]
    with_heads("uniter", Path("uniter-vqa"), {"vqa_output": mlp(width, 2 * width, 5)})
    for folder in ("lxmert-vqa", "uniter-vqa"):
        Path(folder, "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def run(line: str) -> str:
    words = shlex.split(line)
    assert words[0] == "mmpt", line
    done = CliRunner().invoke(app, words[1:])
    rejected = words[1] == "extract" and "1 images rejected" in done.output + done.stderr
    assert done.exit_code == (1 if rejected else 0), f"{line}: {done.output} {done.stderr} {done.exception!r}"
    return done.output


def test_the_commands_of_the_page_go_from_photos_to_answers(files: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        run(line)
    for name in ("answers.jsonl", "answers-uniter.jsonl"):
        rows = [json.loads(row) for row in Path(name).read_text().splitlines()]
        assert [row["image_id"] for row in rows] == ["cat", "dog"]
    lxmert, uniter = RegionStore.open("regions"), RegionStore.open("regions-uniter")
    assert (lxmert.num_classes, uniter.num_classes) == (20, 21)
    assert lxmert.extractor["preset"] == "lxmert"
    assert uniter.class_names is not None
    assert uniter.class_names[0] == "background"
    assert Path("seen.png").is_file()
    assert "broken.png" in Path("regions/errors.jsonl").read_text()
    regions, same = lxmert["cat"], uniter["cat"]
    assert len(regions) == 36
    assert 10 <= len(same) <= 100
    assert regions.class_probs is not None
    assert abs(regions.class_probs.sum(1, dtype="float32") - 1).max() < 2e-3
    assert regions.labels is not None
    assert regions.labels.max() < 20
    refused = CliRunner().invoke(app, ["merge", "regions", "regions-uniter", "--out", "both"])
    assert refused.exit_code == 2
    wrong = CliRunner().invoke(app, ["extract", "--images", "photos", "--model", "photos", "--out", "other"])
    assert wrong.exit_code == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
