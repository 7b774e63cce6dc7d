"""LXMERT and VisualBERT of transformers: saved, converted, compared with gradients, and written back bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LxmertConfig, LxmertForPreTraining, VisualBertConfig, VisualBertForPreTraining

from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.predecessors.conversion import convert, from_predecessor
from mmpt.predecessors.predecessor_export import convert_back, export_predecessor

TINY = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 120}
BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 1000}
BATCH, TOKENS, REGIONS = 3, 9, 5
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def randomised(model: nn.Module, std: float) -> Any:
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=draw)
    return model.eval()


def lxmert(sizes: dict[str, int]) -> LxmertForPreTraining:
    tiny = sizes is TINY
    config = LxmertConfig(
        **sizes,
        **NO_DROPOUT,
        l_layers=3 if tiny else 2,
        x_layers=2,
        r_layers=1,
        visual_feat_dim=16 if tiny else 2048,
        num_object_labels=11,
        num_attr_labels=7,
        num_qa_labels=13,
    )
    return randomised(LxmertForPreTraining(config), 0.3 if tiny else 0.05)


def visual_bert(sizes: dict[str, int]) -> VisualBertForPreTraining:
    tiny = sizes is TINY
    dim = 16 if tiny else 2048
    config = VisualBertConfig(
        **sizes, **NO_DROPOUT, num_hidden_layers=3 if tiny else 2, visual_embedding_dim=dim, pad_token_id=0
    )
    return randomised(VisualBertForPreTraining(config), 0.3 if tiny else 0.05)


def ragged(width: int, vocab_size: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(2)
    corners = torch.rand(BATCH, REGIONS, 2, 2, generator=draw).sort(-2).values
    return {
        "input_ids": torch.randint(5, vocab_size, (BATCH, TOKENS), generator=draw),
        "attention_mask": (torch.arange(TOKENS) < torch.tensor([[9], [6], [4]])).long(),
        "token_type_ids": torch.randint(0, 2, (BATCH, TOKENS), generator=draw),
        "region_features": torch.randn(BATCH, REGIONS, width, generator=draw),
        "region_boxes": corners.flatten(-2),
        "region_attention_mask": (torch.arange(REGIONS) < torch.tensor([[5], [3], [1]])).long(),
    }


def labels(vocab_size: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        "mlm_labels": torch.where(
            torch.arange(TOKENS) % 3 == 1, torch.randint(5, vocab_size, (BATCH, TOKENS), generator=draw), -100
        ),
        "itm_labels": torch.tensor([0, 1, 1]),
    }


def saved(model: Any, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def their_gradients(theirs: nn.Module, ours: MmptForPreTraining) -> list[tuple[str, Tensor, Tensor]]:
    """Return (key, their gradient, ours) of every weight that both have."""
    report = ours.conversion_report
    theirs_by_name, ours_by_name = dict(theirs.named_parameters()), dict(ours.named_parameters())
    found = []
    for fate in report.of("mapped"):
        first, second = theirs_by_name.get(fate.theirs), ours_by_name.get(fate.ours)
        if first is not None and second is not None and first.grad is not None:
            # Losses that are off reach their heads with weight 0, ours not at all.
            ours_grad = torch.zeros_like(first.grad) if second.grad is None else second.grad
            found.append((fate.theirs, first.grad, ours_grad))
    return found


def assert_losses_agree(
    theirs: nn.Module, ours: MmptForPreTraining, their_loss: Tensor, our_loss: Tensor, at_least: int
) -> None:
    """Compare a loss and its gradients of every weight that both have; the fewest weights it must reach are given."""
    torch.testing.assert_close(our_loss, their_loss.squeeze(), atol=1e-4, rtol=1e-5)
    theirs.zero_grad()
    ours.zero_grad()
    their_loss.sum().backward()
    our_loss.backward()
    pairs = their_gradients(theirs, ours)
    assert sum(bool(first.any()) for _, first, _ in pairs) >= at_least
    largest = max(first.abs().max().item() for _, first, _ in pairs)
    for key, first, second in pairs:
        if key.endswith(("position_embeddings.weight", "token_type_embeddings.weight")) and "visual" not in key:
            first, second = first[1:], second[1:]  # LXMERT's padding_idx gives row 0 no gradient
        assert (first - second).abs().max().item() <= 1e-4 * largest, key


@pytest.mark.parametrize("sizes", [TINY, BASE], ids=["tiny", "base"])
def test_lxmert_agrees_in_states_logits_losses_and_gradients(sizes: dict[str, int], tmp_path: Path):
    theirs = lxmert(sizes)
    ours = from_predecessor(saved(theirs, tmp_path))
    ours.set_attn_implementation("eager")
    width, vocab_size = theirs.config.visual_feat_dim, sizes["vocab_size"]
    batch = ragged(width, vocab_size)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")} | {
        "visual_feats": batch["region_features"],
        "visual_pos": batch["region_boxes"],
        "visual_attention_mask": batch["region_attention_mask"],
    }
    close = {"atol": 1e-5, "rtol": 1e-5}
    expected, actual = theirs.lxmert(**inputs), ours.backbone(**batch)
    text, regions = batch["attention_mask"].bool(), batch["region_attention_mask"].bool()
    torch.testing.assert_close(actual.text_last_hidden_state[text], expected.language_output[text], **close)
    torch.testing.assert_close(actual.region_last_hidden_state[regions], expected.vision_output[regions], **close)
    torch.testing.assert_close(actual.pooler_output, expected.pooled_output, **close)
    of_heads, everywhere = theirs(**inputs), ours(**batch)
    of_regions = theirs.obj_predict_head(expected.vision_output)
    torch.testing.assert_close(everywhere.mlm_logits[text], of_heads.prediction_logits[text], **close)
    torch.testing.assert_close(everywhere.itm_logits, of_heads.cross_relationship_score, **close)
    torch.testing.assert_close(everywhere.qa_logits, of_heads.question_answering_score, **close)
    for name, logits in (
        ("obj", everywhere.mrc_logits),
        ("attr", everywhere.mrc_attribute_logits),
        ("feat", everywhere.mrfr_prediction),
    ):
        torch.testing.assert_close(logits[regions], of_regions[name][regions], **close)

    draw = torch.Generator().manual_seed(4)
    given = labels(vocab_size) | {"qa_labels": torch.tensor([3, -100, 12])}
    classes = torch.randint(0, 11, (BATCH, REGIONS), generator=draw)
    attributes = torch.randint(0, 7, (BATCH, REGIONS), generator=draw)
    scores = torch.rand(BATCH, REGIONS, generator=draw)
    masked = torch.rand(BATCH, REGIONS, generator=draw) < 0.5
    features = torch.randn(BATCH, REGIONS, width, generator=draw)
    # LXMERT classifies every region, masked or not, and divides by all of them.
    on_regions: dict[str, tuple[dict[str, Any], tuple[Tensor, Tensor]]] = {
        "mrc": ({"mrc_labels": classes, "region_scores": scores}, (classes, scores)),
        "mrc_attribute": (
            {"mrc_attribute_labels": attributes, "region_attribute_scores": scores},
            (attributes, scores),
        ),
        "mrfr": ({"mrfr_labels": torch.where(masked[..., None], features, -100.0)}, (features, masked.float())),
    }
    none = torch.zeros(BATCH, REGIONS)
    off = {"obj": (classes, none), "attr": (attributes, none), "feat": (features, none)}
    for name, (our_labels, their_labels) in on_regions.items():
        their_name = {"mrc": "obj", "mrc_attribute": "attr", "mrfr": "feat"}[name]
        their_loss = theirs(**inputs, obj_labels=off | {their_name: their_labels}).loss
        output = ours(**batch, **our_labels, loss_denominators={name: torch.tensor(BATCH * REGIONS)})
        loss = theirs.config.visual_loss_normalizer * output[f"{name}_loss"]
        assert_losses_agree(theirs, ours, their_loss, loss, at_least=90)
    on_text = {"mlm": ("mlm_labels", "labels"), "itm": ("itm_labels", "matched_label"), "qa": ("qa_labels", "ans")}
    for name, (our_name, their_name) in on_text.items():
        output = ours(**batch, **{our_name: given[our_name]})
        their_loss = theirs(**inputs, **{their_name: given[our_name]}).loss
        assert_losses_agree(theirs, ours, their_loss, output[f"{name}_loss"], at_least=80)


@pytest.mark.parametrize("sizes", [TINY, BASE], ids=["tiny", "base"])
def test_visual_bert_agrees_in_states_logits_losses_and_gradients(sizes: dict[str, int], tmp_path: Path):
    theirs = visual_bert(sizes)
    ours = from_predecessor(saved(theirs, tmp_path))
    ours.set_attn_implementation("eager")
    batch = ragged(theirs.config.visual_embedding_dim, sizes["vocab_size"])
    given = labels(sizes["vocab_size"])
    given["mlm_labels"][batch["attention_mask"] == 0] = -100
    ignored = torch.full((BATCH, REGIONS), -100)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")} | {
        "visual_embeds": batch["region_features"],
        "visual_attention_mask": batch["region_attention_mask"],
    }
    expected = theirs(**inputs, output_hidden_states=True)
    close = {"atol": 1e-5, "rtol": 1e-5}
    actual = ours.backbone(**batch)
    valid = torch.cat([batch["attention_mask"], batch["region_attention_mask"]], dim=1).bool()
    torch.testing.assert_close(actual.last_hidden_state[valid], expected.hidden_states[-1][valid], **close)
    pooled = theirs.visual_bert(**inputs).pooler_output
    torch.testing.assert_close(actual.pooler_output, pooled, **close)
    everywhere = ours(**batch)
    text = batch["attention_mask"].bool()
    their_logits = expected.prediction_logits[:, :TOKENS]
    torch.testing.assert_close(everywhere.mlm_logits[text], their_logits[text], **close)
    torch.testing.assert_close(everywhere.itm_logits, expected.seq_relationship_logits, **close)

    mlm_labels = torch.cat([given["mlm_labels"], ignored], dim=1)
    words_only = theirs(**inputs, labels=mlm_labels).loss
    output = ours(**batch, mlm_labels=given["mlm_labels"])
    assert_losses_agree(theirs, ours, words_only, output.mlm_loss, at_least=40)
    # Theirs gives the loss of matching only beside that of words.
    unmasked = torch.full_like(mlm_labels, -100)
    unmasked[0, 1] = mlm_labels[0, 1]
    both = theirs(**inputs, labels=unmasked, sentence_image_labels=given["itm_labels"]).loss
    output = ours(**batch, mlm_labels=unmasked[:, :TOKENS], itm_labels=given["itm_labels"])
    assert_losses_agree(theirs, ours, both, output.loss, at_least=45)


@pytest.mark.parametrize(("make", "target"), [(lxmert, "lxmert"), (visual_bert, "visual_bert")])
def test_there_and_back_gives_every_weight(make: Any, target: Any, tmp_path: Path):
    theirs = make(TINY)
    convert(saved(theirs, tmp_path), tmp_path / "ours")
    convert_back(tmp_path / "ours", tmp_path / "back", target)
    before, after = load_file(tmp_path / "theirs/model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert set(before) == set(after)
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key
    loaded = type(theirs).from_pretrained(tmp_path / "back").eval()
    for key, value in theirs.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    sizes = {name: getattr(theirs.config, name) for name in TINY}
    assert {name: getattr(loaded.config, name) for name in TINY} == sizes


def test_what_the_target_cannot_express_is_named(tmp_path: Path):
    ours = from_predecessor(saved(visual_bert(TINY), tmp_path))
    with pytest.raises(ValueError, match="lxmert cannot express a MmptSingleStreamConfig"):
        export_predecessor(ours, tmp_path / "out", "lxmert")
    typed = from_predecessor(tmp_path / "theirs", region_token_type_id=0)
    with pytest.raises(ValueError, match="region_token_type_id is 0, visual_bert has 1"):
        export_predecessor(typed, tmp_path / "out", "visual_bert")
    assert not (tmp_path / "out").exists()
