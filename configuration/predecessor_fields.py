# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Fields of the predecessors' architectures, as their papers and code have them."""

from typing import Any

VISUAL_BERT_ARCHITECTURE: dict[str, Any] = dict(
    region_box_dim=0,
    region_projection_layer_norm=False,
    region_embedding_layer_norm="shared",
    region_type_embedding="own",
    region_token_type_id=1,
    region_position_embedding=True,
    num_region_classes=0,
    region_background_class=None,
)
LXMERT_ARCHITECTURE: dict[str, Any] = dict(
    num_hidden_layers=14,
    region_num_hidden_layers=10,
    text_co_attention_layers=[9, 10, 11, 12, 13],
    region_co_attention_layers=[5, 6, 7, 8, 9],
    share_co_attention=True,
    co_attention_feed_forward=False,
    region_projection_layer_norm=True,
    region_embedding_reduction="mean",
    region_embedding_layer_norm="none",
)
VOLTA: dict[str, Any] = dict(
    pooler_size=1024,
    pooler_act="relu",
    pooled_fusion="mul",
    pooled_dropout_prob=0.1,
    objective_weights={"mlm": 1.0, "mrc_kl": 1.0, "itm": 1.0},
)

UNITER: dict[str, Any] = dict(
    vocab_size=28996,
    region_type_embedding="shared",
    region_token_type_id=1,
    region_mask_embedding=True,
    tie_region_feature_decoder=True,
)
VISUAL_BERT: dict[str, Any] = VISUAL_BERT_ARCHITECTURE | dict(objective_weights={"mlm": 1.0, "itm": 1.0})
OSCAR: dict[str, Any] = dict(
    region_box_dim=6,
    region_projection_layer_norm=False,
    region_embedding_layer_norm="none",
    num_region_classes=0,
    region_background_class=None,
    objective_weights={"mlm": 1.0, "itm": 1.0},
)
VOLTA_UNITER: dict[str, Any] = VOLTA | dict(region_box_dim=5, region_type_embedding="shared", region_token_type_id=1)
VOLTA_VISUAL_BERT: dict[str, Any] = (
    VISUAL_BERT_ARCHITECTURE | VOLTA | dict(num_region_classes=1601, region_background_class=0)
)
VILBERT: dict[str, Any] = dict(
    region_hidden_size=1024,
    region_num_attention_heads=8,
    region_intermediate_size=1024,
    co_attention_hidden_size=1024,
    co_attention_num_heads=8,
    pooler_size=1024,
    pooler_act="relu",
    pooled_fusion="mul",
    pooled_dropout_prob=0.1,
    objective_weights={"mlm": 1.0, "mrc_kl": 1.0, "itm": 1.0},
)
LXMERT: dict[str, Any] = LXMERT_ARCHITECTURE | dict(
    region_box_dim=4,
    num_region_classes=1600,
    region_background_class=None,
    num_region_attributes=400,
    confidence_weighted_classes=True,
    region_feature_loss="smooth_l1",
    share_region_head_transform=True,
    num_qa_labels=9500,
    objective_weights=dict.fromkeys(("mlm", "mrc", "mrc_attribute", "mrfr", "itm", "qa"), 1.0),
)
VOLTA_VILBERT: dict[str, Any] = VOLTA
VOLTA_LXMERT: dict[str, Any] = LXMERT_ARCHITECTURE | VOLTA
