"""Golden encoders with fine-tuned heads of random weights under the predecessors' names, and ragged inputs for them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.factories.paths import GOLDEN

BATCH, TOKENS, REGIONS = 3, 7, 4
LENGTHS, COUNTS = torch.tensor([[7], [4], [5]]), torch.tensor([[4], [2], [3]])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PRETRAINING = ("cls.", "itm_output.", "region_classifier.", "feat_regress.")
Batch = dict[str, Tensor]


def golden_folder(name: str) -> Path:
    """Return the folder of a golden case: in the repository, else in the larger test data; skip the test without it."""
    folders = [GOLDEN / name, Path(os.environ.get("MMPT_TEST_DATA", "")) / "parity" / name]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        pytest.skip(f"MMPT_TEST_DATA has no folder parity/{name}")
    return found


def config_of(name: str) -> dict[str, Any]:
    """Return the original configuration of a golden case."""
    return json.loads((golden_folder(name) / "case.json").read_text())["config"]


def with_heads(
    name: str,
    folder: Path,
    heads: dict[str, nn.Module],
    *,
    types: int = 0,
    keep_pretraining: bool = False,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a golden case's encoder with fine-tuned heads of random weights.

    Args:
        heads: by the name that the predecessor gives them.
        types: rows that the table of token types grows to, as UNITER's fine-tuning does.
        config: entries beside those of the case's configuration.
    """
    draw = torch.Generator().manual_seed(5)
    weights = load_file(golden_folder(name) / "weights.safetensors")
    if not keep_pretraining:
        weights = {key: value for key, value in weights.items() if not key.startswith(PRETRAINING)}
    if types:
        key = "uniter.embeddings.token_type_embeddings.weight"
        more = torch.randn(types - len(weights[key]), weights[key].shape[1], generator=draw)
        weights[key] = torch.cat([weights[key], more])
    for number, (prefix, module) in enumerate(heads.items()):
        randomise(module, seed=number)
        weights |= {f"{prefix}.{key}": value.detach().clone() for key, value in module.state_dict().items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(name) | (config or {})))
    save_file(weights, folder / "model.safetensors")
    return folder


def randomise(module: nn.Module, seed: int = 0) -> Any:
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draw)
    return module.eval()


def mlp(inputs: int, hidden: int, outputs: int, act: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), act or nn.GELU(), nn.LayerNorm(hidden, eps=1e-12), nn.Linear(hidden, outputs)
    )


def ragged(width: int, vocab_size: int = 100, seed: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(5, vocab_size, (BATCH, TOKENS), generator=draw),
        "attention_mask": (torch.arange(TOKENS) < LENGTHS).long(),
        "token_type_ids": torch.zeros(BATCH, TOKENS, dtype=torch.long),
        "region_features": torch.randn(BATCH, REGIONS, width, generator=draw),
        "region_boxes": torch.rand(BATCH, REGIONS, 2, 2, generator=draw).sort(-2).values.flatten(-2),
        "region_attention_mask": (torch.arange(REGIONS) < COUNTS).long(),
    }


def two_images(batch: Batch, seed: int = 8) -> Batch:
    """Return the batch with a second image, whose counts of regions differ."""
    other = ragged(batch["region_features"].shape[-1], seed=seed)
    other["region_attention_mask"] = other["region_attention_mask"].roll(1, 0)
    return {name: torch.stack([value, other[name]], 1) if "region" in name else value for name, value in batch.items()}


def image(batch: Batch, number: int) -> Batch:
    return {name: value[:, number] if "region" in name else value for name, value in batch.items()}


def dropped(model: Any) -> dict[str, str]:
    return {key.theirs: key.note for key in model.conversion_report.of("dropped")}
