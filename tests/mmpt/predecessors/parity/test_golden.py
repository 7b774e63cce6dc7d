"""Converted checkpoints give what the predecessors' original code gave, tensor by tensor and loss by loss."""

import os
from pathlib import Path

import pytest
import torch

from tests.mmpt.predecessors.parity.golden_case import NOT_OURS, GoldenCase

HERE = Path(__file__).parent / "golden"
MORE = Path(os.environ.get("MMPT_TEST_DATA", "")) / "parity"
IN_CLONE = sorted(folder.name for folder in HERE.iterdir() if folder.is_dir())
OTHERS = [
    "hf_lxmert",
    "hf_visualbert",
    "lxmert_original",
    "vilbert_12in1",
    "volta_ctrl_lxmert",
    "volta_ctrl_uniter",
    "volta_ctrl_vilbert",
    "volta_ctrl_visualbert",
    "volta_lxmert",
    "volta_vilbert_base",
    "volta_vilbert_interleaved",
]
TOLERANCE = {"eager": 1e-5, "sdpa": 1e-4}
FEWEST = 7
"""Tensors that the smallest case compares: nothing may fall out of a comparison by its name."""


def case_of(name: str) -> GoldenCase:
    if (HERE / name).is_dir():
        return GoldenCase(HERE / name)
    if not MORE.is_dir():
        pytest.skip("MMPT_TEST_DATA has no folder parity; the golden vectors of the other predecessors go there")
    return GoldenCase(MORE / name)


def overrides_of(run: str) -> dict[str, int]:
    return {"region_token_type_id": int(run[-1])} if run.startswith("vtype") else {}


@pytest.mark.parametrize("attention", TOLERANCE)
@pytest.mark.parametrize("name", IN_CLONE + OTHERS)
def test_every_tensor_agrees(name: str, attention: str, tmp_path: Path):
    case = case_of(name)
    compared = 0
    for run, expected in case.expected().items():
        model = case.convert(tmp_path, "weights.safetensors", attention, **overrides_of(run))
        found = case.computed(model, run)
        if "task_ids" in case.inputs:  # their logits have a place for the task token, ours those of the text
            expected["logits.mlm"] = torch.cat([expected["logits.mlm"][:, :1], expected["logits.mlm"][:, 2:]], dim=1)
        losses = case.losses(model, run)
        for key, tensor in expected.items():
            if key.startswith(NOT_OURS) or (key == "loss.total" and case.about["peer"] == "ChenRocks/UNITER"):
                continue
            if key.startswith("loss."):
                assert losses[key] == pytest.approx(float(tensor), abs=1e-4), f"{run} {key}"
            else:
                difference = (found[key] - tensor).abs().max().item()
                assert difference <= TOLERANCE[attention], f"{run} {key}: {difference}"
            compared += 1
    assert compared >= FEWEST


@pytest.mark.parametrize(
    ("name", "weights", "outputs"),
    [
        ("uniter", "weights.pt", "outputs.safetensors"),
        ("lxmert_original", "weights.pt", "outputs_fp16_weights.safetensors"),
    ],
)
def test_pickled_weights_agree(name: str, weights: str, outputs: str, tmp_path: Path):
    """UNITER's as it is; LXMERT's in float16 and with the prefix of DataParallel."""
    if not MORE.is_dir():
        pytest.skip("MMPT_TEST_DATA has no folder parity; it holds the pickled weights")
    case = GoldenCase(MORE / name)
    for run, expected in case.expected(outputs).items():
        found = case.computed(case.convert(tmp_path, weights, "eager"), run)
        for key in found.keys() & expected.keys():
            assert (found[key] - expected[key]).abs().max().item() <= TOLERANCE["eager"], f"{run} {key}"
        assert len(found.keys() & expected.keys()) >= 4
