"""Late fusion in the backbones: neither modality hears of the other."""

import pytest
import torch
from tiny_models import STREAMS, tiny_backbone, tiny_batch, tiny_pretraining
from torch import Tensor

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def other_image(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {name: tiny_batch(seed=1)[name] for name in ("region_features", "region_boxes")}


def other_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {"input_ids": tiny_batch(seed=1)["input_ids"]}


@pytest.mark.parametrize("stream", STREAMS)
def test_another_image_changes_nothing_of_the_text(stream: str) -> None:
    batch = tiny_batch()
    late, early = tiny_backbone(stream, fusion="late"), tiny_backbone(stream)
    before, after = late(**batch), late(**other_image(batch))
    assert torch.equal(before.text_last_hidden_state, after.text_last_hidden_state)
    assert torch.equal(before.text_pooler_output, after.text_pooler_output)
    assert not torch.equal(before.region_pooler_output, after.region_pooler_output)
    assert not torch.equal(early(**batch).text_pooler_output, early(**other_image(batch)).text_pooler_output)


@pytest.mark.parametrize("stream", STREAMS)
def test_another_text_changes_nothing_of_the_regions(stream: str) -> None:
    batch = tiny_batch()
    late = tiny_backbone(stream, fusion="late")
    before, after = late(**batch), late(**other_text(batch))
    assert torch.equal(before.region_last_hidden_state, after.region_last_hidden_state)
    assert torch.equal(before.region_pooler_output, after.region_pooler_output)
    assert not torch.equal(before.text_pooler_output, after.text_pooler_output)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_each_modality_is_encoded_as_if_alone(stream: str, attention: str) -> None:
    batch = tiny_batch()
    late = tiny_backbone(stream, fusion="late", attention=attention)
    both = late(**batch)
    text = late(**{name: batch[name] for name in TEXT_INPUTS})
    regions = late(**{name: value for name, value in batch.items() if name not in TEXT_INPUTS})
    torch.testing.assert_close(both.text_last_hidden_state, text.text_last_hidden_state)
    torch.testing.assert_close(both.region_last_hidden_state, regions.region_last_hidden_state)


def test_the_joint_view_of_the_single_stream_has_no_weight_between_the_modalities() -> None:
    batch = tiny_batch()
    late = tiny_backbone("single", fusion="late")
    output = late(**batch, output_attentions=True, output_hidden_states=True)
    tokens, regions = batch["input_ids"].shape[1], batch["region_features"].shape[1]
    for weights in output.attentions:
        assert weights.shape[-2:] == (tokens + regions, tokens + regions)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    for weights in output.text_to_region_attentions + output.region_to_text_attentions:
        assert not weights.any()
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize("stream", STREAMS)
def test_matching_with_late_fusion_is_refused(stream: str) -> None:
    with pytest.raises(ValueError, match="'itm' is on with fusion 'late'"):
        tiny_pretraining(stream, fusion="late")
    assert tiny_pretraining(stream, fusion="late", objective_weights={"mlm": 1.0, "mrfr": 1.0})
