"""Every benchmark runs at its smallest; the count of useful work agrees with PyTorch's own; levers change no number."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import collator, inference, levers, loader, memory, scaling, step, trainer
from benchmarks.contenders import OURS, PEERS, make_contenders
from benchmarks.flops import step_flops
from benchmarks.workload import make_pairs
from mmpt.modeling_mmpt.dropout import apply_dropout
from mmpt.processing.pretraining.layout import pretraining_layout
from tests.factories.models import FEATURE, REGIONS, STREAMS, tiny_batch, tiny_labels, tiny_pretraining

CPU = torch.device("cpu")


@pytest.mark.parametrize("stream", STREAMS)
def test_useful_work_is_that_of_the_matrix_products(stream: str) -> None:
    model = tiny_pretraining(stream, vocab_size=53)
    batch = tiny_batch(ragged=False)
    # Everywhere, so that heads and last layer are computed at every place.
    labels = {name: label.clamp(min=0) for name, label in tiny_labels().items() if name != "masked_regions"}
    labels["mrc_kl_labels"] = torch.full_like(labels["mrc_kl_labels"], 1 / labels["mrc_kl_labels"].shape[-1])
    with FlopCounterMode(display=False) as counter:
        model(**batch, **labels).loss.backward()
    config = model.config
    size = getattr(config, "region_hidden_size", None) or config.hidden_size
    places = 3 * REGIONS
    # Features and boxes are no parameters: backward of their projections is one product, not two.
    inputs = 2 * places * size * (FEATURE + config.region_box_dim)
    counted = counter.get_total_flops()
    assert counted == pytest.approx(step_flops(config, batch | labels) - inputs, rel=0.02)


def test_padding_and_places_without_a_label_are_no_useful_work() -> None:
    config = tiny_pretraining("single").config
    whole, ragged = (step_flops(config, tiny_batch(ragged=ragged) | tiny_labels()) for ragged in (False, True))
    fewer = tiny_labels()
    fewer["mlm_labels"][:] = -100
    assert ragged < whole
    assert step_flops(config, tiny_batch() | fewer) < ragged


@pytest.mark.parametrize("kind", [*OURS, *PEERS])
def test_every_contender_takes_a_step(kind: str) -> None:
    name = f"{kind}/bf16"
    contender = make_contenders([name], "tiny", CPU)[name]
    pairs = make_pairs(4, 2)
    seconds, batch = contender.step([pairs[row] for row in range(4)])
    assert sum(seconds.values()) > 0
    assert contender.flops(batch) > 1e6


BENCHMARKS: dict[str, tuple[Any, list[str]]] = {
    "step": (step, ["--contenders", "single/bf16", "single-joint/bf16", "visual_bert/fp32", "--rounds", "1"]),
    "adaptive": (step, ["--contenders", "dual/fp32", "--regions", "adaptive", "--attention", "eager"]),
    "inference": (inference, []),
    "memory": (memory, ["--contenders", "single"]),
    "levers": (levers, ["--streams", "single"]),
    "loader": (loader, ["--workers", "0"]),
    "collator": (collator, []),
    "trainer": (trainer, []),
    "scaling": (scaling, ["--no-processes"]),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_and_writes_its_json(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    module, words = BENCHMARKS[name]
    out = tmp_path / "found.json"
    plots = ["--plot", str(tmp_path / "plot.png")] if module in (step, scaling) else []
    try:
        module.main(["--quick", "--out", str(out), *plots, *words])
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    assert found.pop("settings")["quick"]
    assert all(found.values()) or name in ("step", "adaptive", "memory", "scaling")
    assert not plots or (tmp_path / "plot.png").stat().st_size > 10_000


def test_estimates_use_ratios_alone() -> None:
    row = {"pairs_per_second": 60.0, "matmul_gflops": 90.0, "gflop_per_pair": 1.65}
    peers = {"lxmert/fp32": row | {"pairs_per_second": 16.5}, "visual_bert/fp32": row | {"pairs_per_second": 18.8}}
    found = {
        (one["rival"], one["through"]): one["gain"] for one in step.estimates("small", {"single/bf16": row} | peers)
    }
    assert found["UNITER/fp32", "lxmert/fp32"] == pytest.approx(60 / 26.3)
    assert found["UNITER/fp32", "visual_bert/fp32"] == pytest.approx(60 / (2 * 26.3))
    assert found["UNITER/fp32", "utilisation"] == pytest.approx(60 / (0.51 * 90 / 1.65))


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("lever", levers.OFF)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_lever_changes_no_loss_and_no_gradient(stream: str, lever: str, ragged: bool) -> None:
    """Without dropout; in fp32, but for what concerns bf16, which is to come near."""
    half = lever in ("bf16", "attention casts its input once", "half precision attends without the fused kernel")
    model = tiny_pretraining(stream, attention="sdpa").train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    contender = SimpleNamespace(model=model, optimiser=optimiser, precision="bf16" if half else "fp32")
    batch = tiny_batch(ragged=ragged) | tiny_labels()

    def outcome() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=contender.precision == "bf16"):
            output = model(**batch, **pretraining_layout(model.config, batch))
        output.loss.backward()
        values = {name: value.detach() for name, value in output.items() if value.dim() == 0}
        return values, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    values, gradients = outcome()
    with levers.OFF[lever](contender):
        expected, expected_gradients = outcome()
    assert values.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    difference = max(float((gradients[name] - other).abs().max()) for name, other in expected_gradients.items())
    if half:
        assert values["loss"].item() == pytest.approx(expected["loss"].item(), rel=2e-2)
        assert difference <= 0.1 * largest
        return
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-6), name
    assert difference <= 2e-6 * largest


def test_the_fused_optimiser_takes_the_steps_of_the_loop() -> None:
    weights = []
    for lever in (nullcontext, levers.looped_optimiser):
        model = tiny_pretraining("single")
        optimiser = torch.optim.AdamW(model.parameters(), fused=True)
        with lever(SimpleNamespace(optimiser=optimiser)):
            for seed in range(2):
                draw = torch.Generator().manual_seed(seed)
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=draw)
                optimiser.step()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_dropout_off_its_lever_draws_as_pytorch_does() -> None:
    hidden = torch.ones(1000)
    with levers.torch_dropout(None):
        torch.manual_seed(0)
        drawn = apply_dropout(hidden, 0.1, True)
    torch.manual_seed(0)
    assert drawn.equal(torch.nn.functional.dropout(hidden, 0.1))
