"""Conversion: every key is explained, nothing is guessed silently, the result loads where only mmpt is known."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoProcessor, BertConfig, BertModel

from mmpt import convert, from_predecessor
from mmpt.configuration.errors import MmptError
from mmpt.predecessors.conversion import plan_conversion
from tests.factories.heads import golden_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the", "dog"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """UNITER's weights and configuration in a folder of their own."""
    return their_folder("uniter", tmp_path)


def their_folder(name: str, tmp_path: Path, change: dict[str, Any] | None = None) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    config = json.loads((golden_folder(name) / "case.json").read_text())["config"] | (change or {})
    (folder / "config.json").write_text(json.dumps(config))
    save_file(load_file(golden_folder(name) / "weights.safetensors"), folder / "model.safetensors")
    return folder


def change_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    weights: dict[str, Any] = load_file(folder / "model.safetensors") | change
    save_file({key: value for key, value in weights.items() if value is not None}, folder / "model.safetensors")


def test_every_key_has_one_status(source: Path):
    report = plan_conversion(source).report
    theirs = [key.theirs for key in report.keys]
    assert sorted(theirs) == sorted(load_file(source / "model.safetensors"))
    assert {key.theirs for key in report.of("tied")} == {"cls.predictions.decoder.weight", "feat_regress.weight"}
    assert not report.of("missing")
    assert not report.of("dropped")
    assert "84 mapped, 2 tied" in report.summary()
    assert "uniter.pooler.dense.weight" in str(report)
    assert report.family == "uniter"


def test_unknown_keys_are_an_error_unless_allowed(source: Path):
    change_weights(source, {"mystery.weight": torch.ones(2), "mystery.bias": torch.ones(2)})
    with pytest.raises(ValueError, match=r"2 keys that are unknown for uniter: mystery\.\w+, .*--allow-unknown"):
        plan_conversion(source)
    report = plan_conversion(source, allow_unknown=["mystery.*"]).report
    assert {key.theirs for key in report.of("dropped")} == {"mystery.weight", "mystery.bias"}


def test_shapes_that_do_not_fit_say_got_and_expected(source: Path):
    change_weights(source, {"uniter.pooler.dense.weight": torch.ones(3, 48)})
    with pytest.raises(ValueError, match=r"uniter\.pooler\.dense\.weight has shape \(3, 48\), expected \(48, 48\)"):
        plan_conversion(source)


def test_ties_that_do_not_hold_are_refused(source: Path):
    change_weights(source, {"feat_regress.weight": torch.ones(48, 32)})
    with pytest.raises(
        ValueError,
        match=r"'feat_regress\.weight' and 'uniter\.img_embeddings\.img_linear\.weight' have different values",
    ):
        from_predecessor(source)


def test_a_checkpoint_without_a_weight_is_refused(source: Path):
    change_weights(source, {"uniter.encoder.layer.1.output.dense.bias": None})
    with pytest.raises(ValueError, match=r"lacks 1 weights .* backbone\.layers\.1\.feed_forward\.down\.bias"):
        plan_conversion(source)


def test_absent_heads_switch_their_objectives_off(source: Path):
    heads = [key for key in load_file(source / "model.safetensors") if key.startswith(("itm_", "region_", "feat_"))]
    change_weights(source, dict.fromkeys(heads))
    model = from_predecessor(source)
    assert model.config.objective_weights == {"mlm": 1.0}
    assert set(model.heads) == {"token"}


@pytest.mark.parametrize(
    "key", ["vqa_output.0.weight", "cls.weight", "attention.query.weight", "vil_prediction.main.0.v"]
)
def test_a_fine_tuned_head_that_is_not_covered_stops_the_conversion(key: str, source: Path):
    change_weights(source, {key: torch.ones(2, 2)})
    with pytest.raises(ValueError, match=rf"not supported or incomplete: {re.escape(key)}.*--task pretraining"):
        plan_conversion(source)
    (dropped,) = plan_conversion(source, task="pretraining").report.of("dropped")
    assert (dropped.theirs, "fine-tuned" in dropped.note) == (key, True)


LIES = [
    ("uniter", "hidden_size", 1024),
    ("uniter", "num_hidden_layers", 24),
    ("uniter", "intermediate_size", 4096),
    ("uniter", "vocab_size", 30522),
    ("uniter", "max_position_embeddings", 512),
    ("uniter", "img_dim", 2048),
    ("visualbert_original", "visual_embedding_dim", 2048),
    ("oscar", "img_feature_dim", 2054),
    ("vilbert", "v_hidden_size", 1024),
    ("vilbert", "v_num_hidden_layers", 6),
    ("vilbert", "bi_hidden_size", 1024),
    ("vilbert", "v_feature_size", 2048),
    ("lxmert_original", "l_layers", 9),
    ("lxmert_original", "x_layers", 5),
    ("volta_ctrl_vilbert", "v_hidden_size", 768),
    ("volta_ctrl_vilbert", "num_locs", 4),
    ("volta_ctrl_vilbert", "pooler_size", 1024),
]


@pytest.mark.parametrize(("name", "setting", "value"), LIES)
def test_a_configuration_of_another_model_is_refused_naming_both_values(
    name: str, setting: str, value: int, tmp_path: Path
):
    folder = their_folder(name, tmp_path, {setting: value})
    with pytest.raises(MmptError, match=rf"config\.json has {setting} = {value}, but the weights have \d+"):
        plan_conversion(folder)


def test_numbers_of_attention_heads_are_compared(source: Path, tmp_path: Path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads((source / "config.json").read_text()) | {"num_attention_heads": 8}))
    with pytest.raises(MmptError, match=r"num_attention_heads is 4 in .*config\.json and 8 in .*other\.json"):
        plan_conversion(source, config_path=other)
    (source / "config.json").unlink()
    assert plan_conversion(source, config_path=other).config.num_attention_heads == 8
    other.write_text(json.dumps({"num_attention_heads": 7}))
    with pytest.raises(MmptError, match="num_attention_heads = 7, which does not divide the width 48"):
        plan_conversion(source, config_path=other)


def test_an_unusual_number_of_heads_is_among_the_assumptions(tmp_path: Path):
    folder = tmp_path / "wide"
    folder.mkdir()
    sizes = dict(vocab_size=20, hidden_size=128, num_hidden_layers=1, intermediate_size=8, num_attention_heads=4)
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    report = plan_conversion(folder, family="bert").report
    assert any("num_attention_heads = 4 as configured, though 2 heads of 64" in said for said in report.assumptions)


def test_visual_berts_vcr_file_converts_without_its_image_network(tmp_path: Path):
    folder = their_folder("visualbert_original", tmp_path)
    plain = from_predecessor(folder).state_dict()
    theirs = load_file(folder / "model.safetensors")
    wrapped = {f"bert.{key}": value for key, value in theirs.items()}
    save_file(wrapped | {"detector.backbone.0.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    model = from_predecessor(folder)
    assert all(torch.equal(value, plain[key]) for key, value in model.state_dict().items())
    (dropped,) = [key for key in model.conversion_report.of("dropped") if "position_ids" not in key.theirs]
    assert (dropped.theirs, "image network" in dropped.note) == ("detector.backbone.0.weight", True)


def test_text_encoder_is_not_recognised_if_other_keys_exist(tmp_path: Path):
    folder = tmp_path / "theirs"
    BertModel(BertConfig(vocab_size=20, hidden_size=64, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        folder
    )
    with pytest.raises(
        MmptError, match=r"only a text encoder: \d+ weights .* would be initialised randomly.*--from bert"
    ):
        plan_conversion(folder)
    report = plan_conversion(folder, family="bert").report
    assert any(key.ours == "backbone.region_embeddings.feature_projection.weight" for key in report.of("missing"))
    change_weights(folder, {"vision_tower.patch.weight": torch.ones(2, 2)})
    with pytest.raises(MmptError, match=r"of no known family: it has 1 keys such as vision_tower\.patch\.weight"):
        plan_conversion(folder)


def test_random_weights_are_allowed_by_name_alone(source: Path):
    change_weights(source, {"uniter.pooler.dense.weight": None})
    key = "backbone.text_pooler.dense.weight"
    with pytest.raises(MmptError, match=rf"lacks .*{re.escape(key)}.*--allow-random"):
        plan_conversion(source)
    model = from_predecessor(source, allow_random=["backbone.text_pooler.*"])
    assert [fate.ours for fate in model.conversion_report.of("missing")] == [key]
    assert model.backbone.text_pooler.dense.weight.isfinite().all()


PLACEHOLDERS = {
    "web page": (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer of 63 bytes"),
    "empty": (b"", "is empty"),
    "zeros": (bytes(64), "cannot be read"),
    "text": (b"hello", "cannot be read"),
    "cut": (b"PK\x03\x04" + bytes(40), "cannot be read"),
    "pickle": (b"\x80\x02hello", "is refused|cannot be read"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
@pytest.mark.parametrize("kind", PLACEHOLDERS)
def test_what_a_failed_download_leaves_is_named(kind: str, suffix: str, tmp_path: Path):
    content, message = PLACEHOLDERS[kind]
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(MmptError, match=message) as caught:
        plan_conversion(file)
    assert "()" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["web page", "pointer", "empty"])
def test_so_is_a_configuration_or_a_vocabulary(kind: str, name: str, source: Path, tmp_path: Path):
    content, message = PLACEHOLDERS[kind]
    (source / name).write_bytes(content)
    with pytest.raises(MmptError, match=message):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_folder_is_written_whole_or_not_at_all(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for wrong in ({"tokenizer": str(tmp_path / "nowhere")}, {"tokenizer": str(source)}):
        (source / "vocab.txt").write_text("\n".join(f"word{number}" for number in range(300)))
        with pytest.raises(MmptError, match="tokenizer"):
            convert(source, tmp_path / "ours", **wrong)
    (source / "vocab.txt").unlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MmptError, match="file exists; name a new folder"):
        convert(source, tmp_path / "file")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mmpt.modeling_mmpt.modeling_pretraining.MmptForPreTraining.save_pretrained", full)
        with pytest.raises(OSError, match="No space left"):
            convert(source, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "uniter"]
    (tmp_path / "ours").mkdir()
    convert(source, tmp_path / "ours")
    assert (tmp_path / "ours" / "conversion.json").is_file()
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_float16_becomes_float32_with_the_same_values(source: Path):
    weights = load_file(source / "model.safetensors")
    change_weights(source, {key: value.half() for key, value in weights.items()})
    model = from_predecessor(source)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    expected = weights["uniter.pooler.dense.weight"].half().float()
    assert torch.equal(model.backbone.text_pooler.dense.weight, expected)


def test_matching_has_class_one_for_matched_whatever_it_was(tmp_path: Path):
    for name, key, exchanged in (
        ("uniter", "itm_output.weight", False),
        ("visualbert_original", "cls.seq_relationship.weight", False),
        ("vilbert", "cls.bi_seq_relationship.weight", True),
        ("oscar", "cls.seq_relationship.weight", True),
    ):
        folder = their_folder(name, tmp_path)
        theirs = load_file(folder / "model.safetensors")[key]
        assert torch.equal(from_predecessor(folder).heads["matching"].weight, theirs.flip(0) if exchanged else theirs)


def test_vinvl_has_a_norm_behind_its_projection_and_a_third_class_of_matching(tmp_path: Path):
    folder = their_folder("oscar", tmp_path, {"use_img_layernorm": 1})
    weights = load_file(folder / "model.safetensors")
    size, both = weights["bert.img_embedding.weight"].shape
    draw = torch.Generator().manual_seed(0)
    norm, classes = torch.rand(2, size, generator=draw), torch.rand(3, size, generator=draw)
    change_weights(
        folder,
        {
            "bert.LayerNorm.weight": norm[0],
            "bert.LayerNorm.bias": norm[1],
            "cls.seq_relationship.weight": classes,
            "cls.seq_relationship.bias": torch.arange(3.0),
        },
    )
    model = from_predecessor(folder)
    assert torch.equal(model.heads["matching"].weight, classes[[1, 0, 2]])
    assert torch.equal(model.heads["matching"].bias, torch.tensor([1.0, 0.0, 2.0]))
    features, corners = torch.rand(1, 1, both - 6, generator=draw), torch.tensor([[[0.1, 0.2, 0.5, 0.9]]])
    x1, y1, x2, y2 = corners[0, 0]
    row = torch.cat([features[0, 0], torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1])])
    projected = weights["bert.img_embedding.weight"] @ row + weights["bert.img_embedding.bias"]
    expected = torch.nn.functional.layer_norm(projected, (size,), norm[0], norm[1], 1e-12)
    found = model.backbone.region_embeddings(
        features, corners, torch.ones(1, 1), None, None, model.backbone.text_embeddings
    )
    torch.testing.assert_close(found[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_the_mask_vector_is_row_one(source: Path):
    theirs = load_file(source / "model.safetensors")["uniter.img_embeddings.mask_embedding.weight"]
    model = from_predecessor(source)
    assert torch.equal(model.backbone.region_embeddings.mask_embedding, theirs[1])


def test_settings_replace_what_was_found(tmp_path: Path):
    folder = their_folder("visualbert_original", tmp_path)
    assert from_predecessor(folder).config.region_token_type_id == 0
    assert from_predecessor(folder, region_token_type_id=1).config.region_token_type_id == 1


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("oscar", r"no 'bert\.img_embedding\.weight'"),
        ("lxmert", "none of lxmert's keys"),
        ("visual_bert", "none of visual_bert's keys"),
        ("vilbert", r"no 'bert\.v_embeddings\.image_embeddings\.weight'"),
    ],
)
def test_a_wrong_family_is_an_error(family: Any, message: str, source: Path):
    with pytest.raises(ValueError, match=message):
        plan_conversion(source, family=family)
    with pytest.raises(ValueError, match="unknown family 'vl-bert', expected auto, bert, uniter"):
        plan_conversion(source, family="vl-bert")


def test_unknown_number_of_heads_is_an_error(source: Path):
    (source / "config.json").unlink()
    with pytest.raises(ValueError, match=r"number of attention heads .* --config"):
        plan_conversion(source)


def test_volta_needs_its_configuration(tmp_path: Path):
    key = "bert.encoder.layer.0.attention_self.query.weight"
    save_file({key: torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="the topology cannot be inferred from VOLTA's keys; give its configuration"):
        plan_conversion(tmp_path)


def test_streams_with_different_activations_cannot_be_expressed(tmp_path: Path):
    folder = their_folder("vilbert", tmp_path, {"v_hidden_act": "relu"})
    with pytest.raises(ValueError, match="hidden_act is 'gelu' but v_hidden_act 'relu'"):
        plan_conversion(folder)


def test_names_of_labels_travel(tmp_path: Path):
    folder = their_folder("uniter", tmp_path, {"id2label": {"0": "no", "1": "yes", "2": "maybe"}})
    assert from_predecessor(folder).config.id2label == {0: "no", 1: "yes", 2: "maybe"}


def test_the_folder_loads_where_only_mmpt_is_known(source: Path, tmp_path: Path):
    report = convert(source, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "conversion.json").read_text())
    assert len(written["keys"]) == len(report.keys)
    with pytest.raises(FileExistsError, match="is not empty"):
        convert(source, tmp_path / "ours")

    script = f"""
import torch, mmpt
from transformers import AutoModelForPreTraining
model = AutoModelForPreTraining.from_pretrained({str(tmp_path / "ours")!r}).eval()
output = model(input_ids=torch.arange(8)[None], region_features=torch.ones(1, 2, 32), region_boxes=torch.ones(1, 2, 4))
torch.save([output.mlm_logits.detach(), output.mrc_logits.detach()], {str(tmp_path / "logits.pt")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    model = from_predecessor(source)
    output = model(
        input_ids=torch.arange(8)[None], region_features=torch.ones(1, 2, 32), region_boxes=torch.ones(1, 2, 4)
    )
    loaded = torch.load(tmp_path / "logits.pt")
    assert torch.equal(loaded[0], output.mlm_logits)
    assert torch.equal(loaded[1], output.mrc_logits)


def test_uniter_keeps_case_and_its_padded_vocabulary_is_noted(source: Path, tmp_path: Path):
    (source / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    report = convert(source, tmp_path / "ours")
    assert "word embeddings are padded: 200 rows for 8 entries of the tokenizer" in report.assumptions
    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    assert processor.tokenizer.tokenize("The dog the") == ["The", "dog", "the"]
    assert not processor.image_processor.whole_image_region


def test_vilbert_is_lowercase_and_has_a_whole_image_region(tmp_path: Path):
    folder = their_folder("vilbert", tmp_path)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    convert(folder, tmp_path / "ours")
    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    assert processor.tokenizer.tokenize("The dog") == ["the", "dog"]
    assert processor.image_processor.whole_image_region


def test_a_tokenizer_that_is_too_large_is_refused(source: Path, tmp_path: Path):
    (source / "vocab.txt").write_text("\n".join([*WORDS, *(f"w{i}" for i in range(300))]) + "\n")
    with pytest.raises(ValueError, match="the tokenizer has 308 entries and the word embeddings 200"):
        convert(source, tmp_path / "ours")


def test_a_missing_tokenizer_is_said(source: Path, tmp_path: Path):
    report = convert(source, tmp_path / "ours")
    assert any(
        "no tokenizer was found" in sentence and "BERT base cased" in sentence for sentence in report.assumptions
    )
