# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Allowed ranges of the fields of both configurations, and the keys that are no fields."""

from mmpt.configuration.configuration_tasks import TASK_BOUNDS
from mmpt.configuration.value_bounds import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Bounds

MODEL_BOUNDS: dict[str, Bounds] = TASK_BOUNDS | {
    "vocab_size": AT_LEAST_ONE,
    "hidden_size": AT_LEAST_ONE,
    "num_hidden_layers": NOT_NEGATIVE,
    "num_attention_heads": AT_LEAST_ONE,
    "intermediate_size": AT_LEAST_ONE,
    "hidden_dropout_prob": SHARE,
    "attention_probs_dropout_prob": SHARE,
    "max_position_embeddings": AT_LEAST_ONE,
    "type_vocab_size": AT_LEAST_ONE,
    "initializer_range": NOT_NEGATIVE,
    "layer_norm_eps": POSITIVE,
    "pad_token_id": NOT_NEGATIVE,
    "region_feature_dim": AT_LEAST_ONE,
    "region_box_octaves": NOT_NEGATIVE,
    "region_type_vocab_size": AT_LEAST_ONE,
    "region_token_type_id": NOT_NEGATIVE,
    "pooler_size": AT_LEAST_ONE,
    "pooled_dropout_prob": SHARE,
    "num_task_tokens": NOT_NEGATIVE,
    "num_region_classes": NOT_NEGATIVE,
    "region_background_class": NOT_NEGATIVE,
    "num_region_attributes": NOT_NEGATIVE,
    "num_matching_classes": Bounds(2),
    "num_qa_labels": NOT_NEGATIVE,
    "region_num_hidden_layers": NOT_NEGATIVE,
    "region_hidden_size": AT_LEAST_ONE,
    "region_num_attention_heads": AT_LEAST_ONE,
    "region_intermediate_size": AT_LEAST_ONE,
    "co_attention_hidden_size": AT_LEAST_ONE,
    "co_attention_num_heads": AT_LEAST_ONE,
}
"""Allowed range of each numeric field of both configurations."""

# Keys that transformers passes to a configuration in addition to its fields.
LIBRARY_KEYS = {
    "attn_implementation",
    "auto_map",
    "compression_config",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
    "use_cache",
}
