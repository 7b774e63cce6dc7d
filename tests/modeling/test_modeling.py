"""Both backbones: backends agree, padding never leaks, states are recorded, and what is saved comes back."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mmpt.modeling_mmpt.modeling_base import MmptModelOutput
from tests.factories.models import (
    BATCH,
    DUAL_SIZES,
    HIDDEN,
    LENGTHS,
    REGION_COUNTS,
    REGIONS,
    STREAMS,
    TOKENS,
    tiny_backbone,
    tiny_batch,
    tiny_labels,
    tiny_pretraining,
)

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
TEXT = ("input_ids", "attention_mask", "token_type_ids")
LAYERS, REGION_LAYERS, CO_LAYERS = 2, DUAL_SIZES["region_num_hidden_layers"], 2


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> str:
    return request.param


def text_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name in TEXT}


def regions_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in TEXT}


def assert_valid_states_close(actual: MmptModelOutput, expected: MmptModelOutput, batch: dict[str, Tensor]) -> None:
    text, regions = batch["attention_mask"].bool(), batch["region_attention_mask"].bool()
    torch.testing.assert_close(actual.text_last_hidden_state[text], expected.text_last_hidden_state[text], **CLOSE)
    torch.testing.assert_close(
        actual.region_last_hidden_state[regions], expected.region_last_hidden_state[regions], **CLOSE
    )
    torch.testing.assert_close(actual.pooler_output, expected.pooler_output, **CLOSE)


# Backends


@pytest.mark.parametrize("fusion", ["text", "mul", "sum"])
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_backends_agree_with_eager_attention(stream: str, attention: str, fusion: str):
    batch = tiny_batch()
    # Without gradients, which flex attention has none of on CPUs, and uncompiled, which takes half a minute.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = tiny_backbone(stream, pooled_fusion=fusion)(**batch)
        actual = tiny_backbone(stream, attention=attention, pooled_fusion=fusion)(**batch)
    assert_valid_states_close(actual, expected, batch)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_compiled_model_agrees(stream: str, attention: str):
    model, batch = tiny_backbone(stream, attention=attention), tiny_batch()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_valid_states_close(compiled(**batch), model(**batch), batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(stream: str, dtype: torch.dtype):
    model = tiny_pretraining(stream, attention="sdpa").to(dtype)
    output = model(**tiny_batch(), **tiny_labels())
    assert output.loss.isfinite()
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_gradient_checkpointing_gives_the_same_gradients(stream: str):
    plain = tiny_pretraining(stream).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    assert checkpointed.is_gradient_checkpointing
    for model in (plain, checkpointed):
        model(**tiny_batch(), **tiny_labels()).loss.backward()
    for (name, ours), theirs in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0, msg=name)


# Inputs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_row_of_a_ragged_batch_is_the_row_alone(stream: str, attention: str):
    model, batch = tiny_backbone(stream, attention=attention, pooled_fusion="mul"), tiny_batch()
    together = model(**batch)
    for row, (tokens, regions) in enumerate(zip(LENGTHS, REGION_COUNTS, strict=True)):
        alone = model(
            input_ids=batch["input_ids"][row : row + 1, :tokens],
            token_type_ids=batch["token_type_ids"][row : row + 1, :tokens],
            region_features=batch["region_features"][row : row + 1, :regions],
            region_boxes=batch["region_boxes"][row : row + 1, :regions],
        )
        torch.testing.assert_close(
            together.text_last_hidden_state[row, :tokens], alone.text_last_hidden_state[0], **CLOSE
        )
        torch.testing.assert_close(
            together.region_last_hidden_state[row, :regions], alone.region_last_hidden_state[0], **CLOSE
        )
        torch.testing.assert_close(together.pooler_output[row], alone.pooler_output[0], **CLOSE)


def test_padding_gets_no_gradient(stream: str):
    batch = tiny_batch()
    batch["region_features"].requires_grad_()
    output = tiny_backbone(stream)(**batch)
    text, regions = batch["attention_mask"].bool(), batch["region_attention_mask"].bool()
    (output.text_last_hidden_state[text].sum() + output.region_last_hidden_state[regions].square().sum()).backward()
    gradient = batch["region_features"].grad
    assert not gradient[~regions].any()
    assert gradient[regions].any(-1).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_image_without_regions_is_one_whole_image_region_of_zeros(stream: str, attention: str):
    model, empty, explicit = tiny_backbone(stream, attention=attention), tiny_batch(), tiny_batch()
    empty["region_attention_mask"][1] = 0
    explicit["region_attention_mask"][1] = torch.tensor([1, 0, 0, 0])
    explicit["region_features"][1, 0] = 0
    explicit["region_boxes"][1, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert_valid_states_close(model(**empty), model(**explicit), explicit)


def test_one_region_is_enough(stream: str):
    batch = tiny_batch()
    batch = text_of(batch) | {name: value[:, :1] for name, value in regions_of(batch).items()}
    output = tiny_backbone(stream)(**batch)
    assert output.region_last_hidden_state.shape[1] == 1
    assert output.region_last_hidden_state.isfinite().all()


def test_order_of_regions_does_not_matter(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch(ragged=False)
    order = torch.tensor([2, 0, 3, 1])
    moved = model(**text_of(batch), **{name: value[:, order] for name, value in regions_of(batch).items()})
    output = model(**batch)
    torch.testing.assert_close(moved.text_last_hidden_state, output.text_last_hidden_state, **CLOSE)
    torch.testing.assert_close(moved.region_last_hidden_state, output.region_last_hidden_state[:, order], **CLOSE)


def test_masks_of_ones_are_the_default(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch(ragged=False)
    without = {name: value for name, value in batch.items() if "attention_mask" not in name}
    assert_valid_states_close(model(**without), model(**batch), batch)


def test_inputs_embeds_stand_for_input_ids(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch()
    embedded = {name: value for name, value in batch.items() if name != "input_ids"}
    embedded["inputs_embeds"] = model.get_input_embeddings()(batch["input_ids"])
    assert_valid_states_close(model(**embedded), model(**batch), batch)


def test_text_alone(stream: str):
    batch = text_of(tiny_batch())
    output = tiny_backbone(stream, pooled_fusion="mul")(**batch)
    assert output.text_last_hidden_state.shape == (BATCH, TOKENS, HIDDEN)
    assert output.region_last_hidden_state is None
    torch.testing.assert_close(output.last_hidden_state, output.text_last_hidden_state)
    torch.testing.assert_close(output.pooler_output, output.text_pooler_output)


def test_regions_alone(stream: str):
    batch = regions_of(tiny_batch())
    output = tiny_backbone(stream, pooled_fusion="mul")(**batch)
    assert output.region_last_hidden_state.shape[:2] == (BATCH, REGIONS)
    assert output.text_last_hidden_state is None
    torch.testing.assert_close(output.last_hidden_state, output.region_last_hidden_state)
    torch.testing.assert_close(output.pooler_output, output.region_pooler_output)


def test_fused_vector_is_product_or_sum_of_the_pooled_ones(stream: str):
    multiplied, added = (tiny_backbone(stream, pooled_fusion=fusion)(**tiny_batch()) for fusion in ("mul", "sum"))
    text, regions = multiplied.text_pooler_output, multiplied.region_pooler_output
    torch.testing.assert_close(multiplied.pooler_output, text * regions)
    torch.testing.assert_close(added.pooler_output, text + regions)


def test_no_input_is_refused(stream: str):
    with pytest.raises(ValueError, match=r"got no input, expected input_ids \(or inputs_embeds\), region_features"):
        tiny_backbone(stream)()


def test_text_given_twice_is_refused(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch()
    embedded = model.get_input_embeddings()(batch["input_ids"])
    with pytest.raises(ValueError, match="got input_ids and inputs_embeds, expected one of them"):
        model(**batch, inputs_embeds=embedded)


def test_text_that_is_too_long_is_refused(stream: str):
    with pytest.raises(ValueError, match="the text has 9 tokens, the model has 8 positions"):
        tiny_backbone(stream)(input_ids=torch.ones(1, 9, dtype=torch.long))


def test_features_of_another_width_are_refused(stream: str):
    batch = tiny_batch()
    batch["region_features"] = torch.zeros(BATCH, REGIONS, 7)
    with pytest.raises(ValueError, match="7 numbers wide, the model expects region_feature_dim 6"):
        tiny_pretraining(stream)(**batch)


def test_tuple_is_returned_on_request(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch()
    torch.testing.assert_close(model(**batch, return_dict=False)[0], model(**batch).last_hidden_state)


# Recorded states


@pytest.mark.parametrize("by", ["call", "configuration"])
def test_single_stream_records_states_of_the_joint_sequence(by: str):
    asked = {"output_hidden_states": True, "output_attentions": True}
    model = tiny_backbone("single", **(asked if by == "configuration" else {}))
    batch = tiny_batch()
    output = model(**batch, **(asked if by == "call" else {}))
    length = TOKENS + REGIONS
    assert len(output.hidden_states) == LAYERS + 1
    assert len(output.attentions) == LAYERS
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
    text = model.text_embeddings(batch["input_ids"], batch["token_type_ids"])
    torch.testing.assert_close(output.text_hidden_states[0], text)
    torch.testing.assert_close(
        torch.cat([output.text_hidden_states[0], output.region_hidden_states[0]], 1), output.hidden_states[0]
    )
    torch.testing.assert_close(output.text_hidden_states[-1], output.text_last_hidden_state)
    torch.testing.assert_close(output.region_hidden_states[-1], output.region_last_hidden_state)
    for layer, weights in enumerate(output.attentions):
        assert weights.shape == (BATCH, 2, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, 2, length))
        upper = torch.cat([output.text_attentions[layer], output.text_to_region_attentions[layer]], -1)
        lower = torch.cat([output.region_to_text_attentions[layer], output.region_attentions[layer]], -1)
        torch.testing.assert_close(torch.cat([upper, lower], -2), weights)
        padded = torch.cat([batch["attention_mask"], batch["region_attention_mask"]], 1) == 0
        assert not weights.transpose(1, 3)[padded].any()


@pytest.mark.parametrize("by", ["call", "configuration"])
def test_dual_stream_records_states_of_both_streams_and_directions(by: str):
    asked = {"output_hidden_states": True, "output_attentions": True}
    model = tiny_backbone("dual", **(asked if by == "configuration" else {}))
    batch = tiny_batch()
    output = model(**batch, **(asked if by == "call" else {}))
    assert len(output.text_hidden_states) == LAYERS + 1
    assert len(output.region_hidden_states) == REGION_LAYERS + 1
    text = model.text_embeddings(batch["input_ids"], batch["token_type_ids"])
    torch.testing.assert_close(output.text_hidden_states[0], text)
    torch.testing.assert_close(output.text_hidden_states[1], model.text_layers[0](text, _additive(batch)))
    torch.testing.assert_close(output.text_hidden_states[-1], output.text_last_hidden_state)
    regions = model.region_embeddings(
        batch["region_features"], batch["region_boxes"], batch["region_attention_mask"], None, None, None
    )
    torch.testing.assert_close(output.region_hidden_states[0], regions)
    torch.testing.assert_close(output.hidden_states, output.text_hidden_states)
    torch.testing.assert_close(output.attentions, output.text_attentions)
    for weights, count, shape in (
        (output.text_attentions, LAYERS, (BATCH, 2, TOKENS, TOKENS)),
        (output.region_attentions, REGION_LAYERS, (BATCH, 3, REGIONS, REGIONS)),
        (output.text_to_region_attentions, CO_LAYERS, (BATCH, 2, TOKENS, REGIONS)),
        (output.region_to_text_attentions, CO_LAYERS, (BATCH, 2, REGIONS, TOKENS)),
    ):
        assert len(weights) == count
        for layer in weights:
            assert layer.shape == shape
            torch.testing.assert_close(layer.sum(-1), torch.ones(shape[:-1]))
    padded = batch["region_attention_mask"] == 0
    assert not output.text_to_region_attentions[0].transpose(1, 3)[padded].any()


def test_last_region_state_is_recorded_behind_the_last_layer():
    # Here co-attention is what comes last in either stream.
    model = tiny_backbone("dual", text_co_attention_layers=[0, 2], region_co_attention_layers=[0, 3])
    batch = tiny_batch()
    output = model(**batch, output_hidden_states=True)
    text = model.text_embeddings(batch["input_ids"], batch["token_type_ids"])
    torch.testing.assert_close(output.text_hidden_states[0], text)
    torch.testing.assert_close(output.text_hidden_states[-1], output.text_last_hidden_state)
    assert len(output.region_hidden_states) == REGION_LAYERS + 1


def _additive(batch: dict[str, Tensor]) -> Tensor:
    padded = batch["attention_mask"][:, None, None] == 0
    return torch.zeros(padded.shape).masked_fill(padded, torch.finfo(torch.float32).min)


def test_nothing_is_recorded_unless_asked_for(stream: str):
    output = tiny_backbone(stream)(**tiny_batch())
    assert not any(name.endswith(("hidden_states", "attentions")) for name in output)


def test_hidden_states_can_be_chosen_by_number(stream: str):
    model, batch = tiny_backbone(stream), tiny_batch()
    every = model(**batch, output_hidden_states=True).hidden_states
    some = model(**batch, output_hidden_states=[0, -1]).hidden_states
    torch.testing.assert_close(some[0], every[0])
    torch.testing.assert_close(some[-1], every[-1])
    assert some[1] is None


@pytest.mark.parametrize("keep", [text_of, regions_of])
def test_states_of_one_modality_are_recorded_alone(stream: str, keep):
    output = tiny_backbone(stream)(**keep(tiny_batch()), output_hidden_states=True, output_attentions=True)
    mine, other = ("text", "region") if keep is text_of else ("region", "text")
    assert (
        len(output[f"{mine}_hidden_states"]) == (LAYERS if stream == "single" or mine == "text" else REGION_LAYERS) + 1
    )
    assert not output.get(f"{other}_hidden_states")
    assert not output.get("text_to_region_attentions")


def test_pretraining_model_passes_the_states_on(stream: str):
    model, batch = tiny_pretraining(stream), tiny_batch()
    asked = {"output_hidden_states": True, "output_attentions": True}
    expected, actual = model.backbone(**batch, **asked), model(**batch, **asked)
    for name in ("hidden_states", "region_hidden_states", "region_attentions", "text_to_region_attentions"):
        torch.testing.assert_close(actual[name], expected[name])


# Saving


@pytest.mark.parametrize("build", [tiny_backbone, tiny_pretraining])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["50GB", "4KB"], ids=["whole", "sharded"])
def test_saved_model_gives_the_same_output(tmp_path: Path, stream: str, build, dtype: torch.dtype, shard: str):
    model = build(stream).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "4KB")
    loaded, info = type(model).from_pretrained(
        tmp_path, dtype="auto", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    for (name, ours), theirs in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert theirs.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    torch.testing.assert_close(loaded(**tiny_batch()).to_tuple(), model(**tiny_batch()).to_tuple(), rtol=0, atol=0)


def test_backbone_of_a_saved_pretraining_model_loads_alone(tmp_path: Path, stream: str):
    model = tiny_pretraining(stream)
    model.save_pretrained(tmp_path)
    backbone = type(model.backbone).from_pretrained(tmp_path, attn_implementation="eager")
    batch = tiny_batch()
    assert_valid_states_close(backbone(**batch), model.backbone(**batch), batch)


def test_pretraining_model_takes_the_weights_of_a_saved_backbone(tmp_path: Path, stream: str):
    backbone = tiny_backbone(stream)
    backbone.save_pretrained(tmp_path)
    model, info = type(tiny_pretraining(stream)).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"heads"}
    batch = tiny_batch()
    assert_valid_states_close(model.backbone(**batch), backbone(**batch), batch)


@pytest.mark.parametrize("tied_feature", [False, True])
def test_tied_weights_are_saved_once_and_stay_tied(tmp_path: Path, stream: str, tied_feature: bool):
    model = tiny_pretraining(stream, tie_region_feature_decoder=tied_feature)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "heads.token.decoder.weight" not in list(file.keys())
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.heads["token"].decoder.weight is loaded.backbone.text_embeddings.word_embeddings.weight


def test_initial_weights_follow_the_initializer_range(stream: str):
    model = tiny_pretraining(stream, region_mask_embedding=True, initializer_range=0.02, hidden_size=64)
    assert model.backbone.region_embeddings.mask_embedding.abs().max() > 0
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            assert parameter.unique().tolist() == [float(name.endswith("weight"))], name
        elif name.endswith("feature_projection.bias") and model.config.region_projection_layer_norm:
            assert parameter.all(), name  # a masked region is its projection's bias, and a LayerNorm follows
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert parameter.std() < 0.04, name


def test_masked_regions_do_not_make_gradients_explode(stream: str):
    model = tiny_pretraining(stream, region_projection_layer_norm=True, initializer_range=0.02)
    batch = tiny_batch() | {"region_features": torch.zeros_like(tiny_batch()["region_features"])}
    model(**batch, **tiny_labels()).loss.backward()
    norms = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm() < 1e3  # 1 / sqrt(layer_norm_eps) is a million


def test_fsdp_plan_names_modules_of_the_model(stream: str):
    model = tiny_backbone(stream)
    names = {name for name, _ in model.named_modules()}
    for pattern in model.config.base_model_fsdp_plan:
        assert pattern.replace("*", "0") in names


def test_modules_that_are_not_split_exist(stream: str):
    found = {type(module).__name__ for module in tiny_backbone(stream).modules()}
    expected = set(tiny_backbone("dual")._no_split_modules)
    assert expected - found == (set() if stream == "dual" else {"MmptCoAttentionLayer"})
