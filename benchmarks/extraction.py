"""Region extraction with bottom-up attention's detector: what an image costs, beside the machine's matmul rate.

The architecture of the released weights at random, an image of 600 x 1000, 300 proposals, one thread. CPU seconds of
each part, the peak of the memory, and the share of what a matmul of the same round does; on a GPU images a second.
"""

import resource
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import DTYPES, matmul_rate, now, parse, start, write
from mmpt.configuration.configuration_bottom_up import PRESETS, BottomUpConfig
from mmpt.modeling_mmpt.bottom_up_selection import select_tsv
from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector
from mmpt.modeling_mmpt.roi_pooling import POOLERS

SIZES = {"small": (600, 1000, BottomUpConfig), "tiny": (96, 160, None)}
TINY: dict[str, Any] = dict(
    stem_width=8, stage_widths=[16, 32, 64, 128], inner_widths=[8, 16, 32, 64], stage_depths=[1, 1, 1, 1], rpn_width=16,
    num_classes=20, num_attributes=8, class_embedding_size=8, attribute_hidden_size=8,
)  # fmt: skip


def flops_of(model: BottomUpDetector, image: Tensor, boxes: Tensor) -> float:
    """Return the floating-point operations of the convolutions and linear layers for an image."""
    counted = [0.0]

    def count(module: torch.nn.Module, _: Any, output: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        # Of (out, in, height, width) or (out, in), each output reads the weights of its row.
        counted[0] += 2.0 * output.numel() * weight[0].numel()

    handles = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    res4 = model.res4(image)
    model.rpn(res4)
    cells = POOLERS[model.config.roi_pooling](res4[0], model.config.roi_resolution)(boxes[:1])
    before = counted[0]
    model.res5(cells.permute(0, 3, 1, 2))  # of one region
    counted[0] += (counted[0] - before) * (len(boxes) - 1)
    for handle in handles:
        handle.remove()
    return counted[0]


def make_boxes(count: int, height: int, width: int) -> Tensor:
    """Return random boxes (count, 4) inside an image."""
    ends = torch.rand(count, 2, 2).sort(dim=1).values * torch.tensor([width - 1, height - 1])
    return ends.flatten(1)


def run(model: BottomUpDetector, image: Tensor, boxes: Tensor, device: torch.device) -> dict[str, float]:
    """Return seconds of each part of an image's extraction."""
    found = {}
    times = [now(device)]

    def lap(name: str) -> None:
        times.append(now(device))
        found[name] = times[-1] - times[-2]

    res4 = model.res4(image)
    lap("backbone")
    model.propose(res4, (image.shape[2], image.shape[3]), 1.6)
    lap("proposals")
    features = model.pool(res4, boxes)
    lap("regions")
    probs = model.classifier(features.to(model.dtype)).float().softmax(-1)[:, 1:]
    select_tsv(boxes / 1.6, probs, threshold=0.3, score=0.2, least=10, most=100, extra=1)
    lap("selection")
    found["image"] = times[-1] - times[0]
    pooler = POOLERS[model.config.roi_pooling](res4[0], model.config.roi_resolution)
    for chunk in boxes.split(model.config.region_chunk):
        pooler(chunk)
    lap("pooling alone")
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = start(__doc__, "extraction", 1, 3, list(SIZES))
    parser.set_defaults(precision="fp32")
    parser.add_argument("--proposals", type=int, default=300)
    parser.add_argument("--chunk", type=int, default=BottomUpConfig.region_chunk)
    arguments = parse(parser, words)
    height, width, kind = SIZES[arguments.size]
    config = BottomUpConfig(**(TINY if kind is None else {}), region_chunk=arguments.chunk)
    for name, value in PRESETS["uniter"].of_model.items():
        setattr(config, name, value)
    device = arguments.device
    model = BottomUpDetector(config).eval().to(device, DTYPES[arguments.precision])
    image = (torch.rand(1, 3, height, width, device=device) * 255 - 115).to(model.dtype)
    boxes = make_boxes(arguments.proposals, height, width).to(device)
    rounds, rates = [], []
    with torch.inference_mode():
        flops = flops_of(model, image, boxes)
        for _ in range(arguments.rounds):
            rates.append(matmul_rate(arguments.precision, device))
            rounds.append(run(model, image, boxes, device))
            rates.append(matmul_rate(arguments.precision, device))
    seconds = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    rate = statistics.median(rates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    shares = [flops / one["image"] / statistics.mean(rates[2 * n : 2 * n + 2]) for n, one in enumerate(rounds)]
    found = {
        "seconds": seconds,
        "rounds": rounds,
        "tflop": flops / 1e12,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul": statistics.median(shares),
        "peak_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else peak,
        "images_per_second": 1 / seconds["image"],
    }
    print(
        f"{seconds['image']:.2f} s an image ({', '.join(f'{name} {value:.2f}' for name, value in seconds.items())}), "
        f"{flops / 1e12:.2f} TFLOP, {found['share_of_matmul']:.0%} of the matmul rate ({rate / 1e9:.0f} GFLOP/s), "
        f"peak {found['peak_gb']:.2f} GB"
    )
    write(arguments, found)


if __name__ == "__main__":
    main()
