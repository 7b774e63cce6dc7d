"""Embeddings of tokens and regions: box encodings by hand, sums and norms spelled out, and what they refuse."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.modeling_mmpt.embeddings import (
    MmptRegionEmbeddings,
    MmptTextEmbeddings,
    attend_to_some_region,
    encode_boxes,
)
from tests.factories.models import FEATURE, HIDDEN, tiny_batch, tiny_config

BOX = torch.tensor([[[0.1, 0.2, 0.5, 0.8]]])  # 0.4 wide, 0.6 high


def build(**overrides: object) -> tuple[MmptTextEmbeddings, MmptRegionEmbeddings]:
    """Return both embeddings with random weights, norms and biases included."""
    config = tiny_config("single", **overrides)
    text, regions = MmptTextEmbeddings(config), MmptRegionEmbeddings(config, HIDDEN)
    draw = torch.Generator().manual_seed(0)
    for parameter in (*text.parameters(), *regions.parameters()):
        torch.nn.init.normal_(parameter, generator=draw)
    return text.eval(), regions.eval()


def embed(text: MmptTextEmbeddings, regions: MmptRegionEmbeddings, **changes: Tensor | None) -> Tensor:
    batch = tiny_batch()
    inputs = {name: batch[name] for name in ("region_features", "region_boxes", "region_attention_mask")}
    inputs = {"region_type_ids": None, "masked_regions": None, **inputs, **changes}
    return regions(**inputs, text=text)


def norm(layer: torch.nn.LayerNorm, hidden: Tensor) -> Tensor:
    """LayerNorm by its definition."""
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (4, [0.1, 0.2, 0.5, 0.8]),
        (5, [0.1, 0.2, 0.5, 0.8, 0.24]),
        (6, [0.1, 0.2, 0.5, 0.8, 0.4, 0.6]),
        (7, [0.1, 0.2, 0.5, 0.8, 0.4, 0.6, 0.24]),
    ],
)
def test_box_encoding_by_hand(numbers: int, expected: list[float]):
    torch.testing.assert_close(encode_boxes(BOX, numbers), torch.tensor([[expected]]))


def test_octaves_append_sines_and_cosines():
    encoded = encode_boxes(BOX, 4, octaves=2)[0, 0].tolist()
    angles = [math.pi * scale * number for number in (0.1, 0.2, 0.5, 0.8) for scale in (1, 2)]
    expected = [0.1, 0.2, 0.5, 0.8, *map(math.sin, angles), *map(math.cos, angles)]
    assert encoded == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("numbers", "octaves"), [(4, 0), (5, 1), (7, 3)])
def test_box_projection_fits_the_encoding(numbers: int, octaves: int):
    text, regions = build(region_box_dim=numbers, region_box_octaves=octaves)
    assert regions.box_projection.in_features == encode_boxes(BOX, numbers, octaves).shape[-1]
    assert embed(text, regions).isfinite().all()


def test_uniter_sum_by_hand():
    text, regions = build(region_type_embedding="shared", region_token_type_id=1)
    batch = tiny_batch()
    features = norm(regions.feature_layer_norm, regions.feature_projection(batch["region_features"]))
    boxes = norm(regions.box_layer_norm, regions.box_projection(encode_boxes(batch["region_boxes"], 7)))
    expected = norm(regions.layer_norm, features + boxes + text.token_type_embeddings.weight[1])
    torch.testing.assert_close(embed(text, regions), expected, atol=1e-5, rtol=1e-5)


def test_vilbert_sum_by_hand():
    text, regions = build(region_projection_layer_norm=False, region_box_dim=5)
    batch = tiny_batch()
    features = regions.feature_projection(batch["region_features"])
    boxes = regions.box_projection(encode_boxes(batch["region_boxes"], 5))
    torch.testing.assert_close(embed(text, regions), norm(regions.layer_norm, features + boxes), atol=1e-5, rtol=1e-5)


def test_oscar_sum_is_one_projection_of_the_concatenation():
    text, regions = build(region_projection_layer_norm=False, region_box_dim=6, region_embedding_layer_norm="none")
    batch = tiny_batch()
    joined = torch.cat([batch["region_features"], encode_boxes(batch["region_boxes"], 6)], dim=-1)
    weight = torch.cat([regions.feature_projection.weight, regions.box_projection.weight], dim=1)
    bias = regions.feature_projection.bias + regions.box_projection.bias
    torch.testing.assert_close(embed(text, regions), F.linear(joined, weight, bias), atol=1e-5, rtol=1e-5)


def test_mean_is_half_the_sum():
    shared = {"region_embedding_layer_norm": "none"}
    summed, averaged = build(**shared), build(**shared, region_embedding_reduction="mean")
    torch.testing.assert_close(embed(*averaged), embed(*summed) / 2)


def test_mask_vector_is_added_to_masked_features_only():
    text, regions = build(region_mask_embedding=True)
    batch = tiny_batch()
    masked = torch.zeros(batch["region_features"].shape[:2], dtype=torch.bool)
    masked[0, 1] = True
    by_hand = batch["region_features"] + masked[..., None] * regions.mask_embedding
    expected = embed(text, regions, region_features=by_hand)
    torch.testing.assert_close(embed(text, regions, masked_regions=masked), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("table", ["own", "shared"])
def test_region_type_ids_are_counted_from_the_token_type_of_regions(table: str):
    sizes = {"type_vocab_size": 3, "region_type_vocab_size": 3, "region_embedding_layer_norm": "none"}
    text, regions = build(region_type_embedding=table, region_token_type_id=1, **sizes)
    weight = (regions if table == "own" else text).token_type_embeddings.weight
    type_ids = torch.tensor([[0, 1, 0, 1]] * 3)
    difference = embed(text, regions, region_type_ids=type_ids) - embed(text, regions)
    expected = type_ids[..., None] * (weight[2] - weight[1])
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=1e-5)


def test_row_without_regions_is_one_whole_image_region_of_zeros():
    text, regions = build()
    mask = tiny_batch()["region_attention_mask"]
    mask[1] = 0
    explicit = tiny_batch()
    explicit["region_features"][1, 0] = 0
    explicit["region_boxes"][1, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    expected = embed(text, regions, region_features=explicit["region_features"], region_boxes=explicit["region_boxes"])
    actual = embed(text, regions, region_attention_mask=mask)
    torch.testing.assert_close(actual[:, 0], expected[:, 0])
    torch.testing.assert_close(actual[[0, 2]], expected[[0, 2]])


def test_attention_is_switched_on_in_empty_rows_only():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0]])
    expected = [[True, True, False], [True, False, False], [False, True, False]]
    assert attend_to_some_region(mask).tolist() == expected


def test_half_precision_features_are_taken_by_a_single_precision_model():
    text, regions = build()
    features = tiny_batch()["region_features"].half()
    torch.testing.assert_close(
        embed(text, regions, region_features=features), embed(text, regions, region_features=features.float())
    )


def test_text_sum_by_hand():
    text, _ = build()
    ids, types = torch.tensor([[3, 4, 5]]), torch.tensor([[0, 1, 1]])
    words = text.word_embeddings.weight[ids] + text.token_type_embeddings.weight[types]
    expected = norm(text.layer_norm, words + text.position_embeddings.weight[:3])
    torch.testing.assert_close(text(ids, types), expected, atol=1e-5, rtol=1e-5)


def test_positions_that_are_given_are_used():
    text, _ = build()
    ids = torch.tensor([[3, 4]])
    words = text.word_embeddings.weight[ids] + text.token_type_embeddings.weight[0]
    expected = norm(text.layer_norm, words + text.position_embeddings.weight[[5, 2]])
    given = text(ids, position_ids=torch.tensor([[5, 2]]))
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_task_embedding_stands_behind_the_first_token_without_position_or_type():
    text, _ = build(num_task_tokens=2)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    plain, with_task = text(ids), text(ids, task_ids=torch.tensor([1, 0]))
    torch.testing.assert_close(with_task[:, [0, 2, 3]], plain)
    tasks = norm(text.layer_norm, text.task_embeddings.weight[[1, 0]])
    torch.testing.assert_close(with_task[:, 1], tasks, atol=1e-5, rtol=1e-5)


def test_task_ids_need_a_table():
    text, _ = build()
    with pytest.raises(ValueError, match="no task embeddings; set num_task_tokens"):
        text(torch.tensor([[3]]), task_ids=torch.tensor([0]))


def test_text_longer_than_the_table_of_positions_is_refused():
    text, _ = build()
    with pytest.raises(ValueError, match=r"9 tokens, the model has 8 positions .*truncation=True, max_length=8"):
        text(torch.ones(1, 9, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region_features": torch.zeros(3, 4, 9)}, "9 numbers wide, the model expects region_feature_dim 6. Were the"),
        ({"region_features": torch.zeros(3, 0, FEATURE)}, r"shape \(3, 0, 6\), expected \(batch, regions, feature\)"),
        ({"region_features": torch.zeros(3, FEATURE)}, r"shape \(3, 6\), expected"),
        ({"region_boxes": None}, r"region_boxes are missing: .* pass \(batch, regions, 4\) in 0\.\.1"),
        ({"region_boxes": torch.zeros(3, 4, 7)}, r"shape \(3, 4, 7\), expected \(3, 4, 4\): .*computed by the model"),
        ({"region_boxes": torch.zeros(3, 2, 4)}, r"shape \(3, 2, 4\), expected \(3, 4, 4\)"),
        ({"region_type_ids": torch.zeros(3, 4)}, "region_type_ids were given but region_type_embedding is 'none'"),
    ],
)
def test_input_of_another_shape_is_refused(changes: dict[str, Tensor | None], message: str):
    text, regions = build()
    with pytest.raises(ValueError, match=message):
        embed(text, regions, **changes)


def test_boxes_may_be_left_out_where_none_are_embedded():
    text, regions = build(region_box_dim=0)
    torch.testing.assert_close(embed(text, regions, region_boxes=None), embed(text, regions))
