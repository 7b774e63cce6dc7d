"""Two processes train what one trains: FSDP2 by the plan and by accelerate's default, and DDP without a search.

Started by `test_sharding.py` with a few models through torchrun; `make sharding` walks all of them.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.distributed import DistributedConfig

sys.path.insert(0, str(Path(__file__).parent))
from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from tests.factories.models import STREAMS
from tests.factories.presets import Case, every_case, mechanism_cases, pretraining_case

TOLERANCE = 1e-5
PAIRS = [(a, b) for place, a in enumerate(OBJECTIVE_NAMES) for b in OBJECTIVE_NAMES[place + 1 :]]


def train(case: Case, model: Any, steps: int = 2) -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses of some steps, and the gradients of the last: of each weight that has one, whole."""
    model.train()
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        torch.manual_seed(0)
        loss = model(**case.batch, **case.labels).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, {name: _whole(weight.grad) for name, weight in model.named_parameters() if weight.grad is not None}


def by_plan(case: Case, folder: Path) -> Any:
    """Return the model as `from_pretrained` splits it."""
    if dist.get_rank() == 0:
        case.build().save_pretrained(folder)
    dist.barrier()
    return case.model_class.from_pretrained(folder, distributed_config=DistributedConfig(fsdp_size=2))


def by_accelerate(case: Case, folder: Path) -> Any:
    """Return the model as accelerate splits it: by the classes that are not split, if no others are named."""
    # `prepare` does this on GPUs only.
    return fsdp2_prepare_model(ACCELERATOR, case.build())


def by_ddp(case: Case, folder: Path) -> Any:
    """Return the model whole in either process, where each weight must have a gradient."""
    return DistributedDataParallel(case.build(), find_unused_parameters=False)


def compare(case: Case, how: Any) -> str:
    """Return what differs from one process, or nothing."""
    expected_losses, expected = train(case, case.build())
    with tempfile.TemporaryDirectory() as folder:
        places: list[Any] = [folder]
        dist.broadcast_object_list(places)
        try:
            model = how(case, Path(places[0]))
            if how is not by_ddp and not all(isinstance(weight, DTensor) for weight in model.parameters()):
                return "weights are not split"
            losses, found = train(case, model)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
        dist.barrier()
    found = {name.removeprefix("module."): value for name, value in found.items()}
    if set(found) != set(expected):
        return f"gradients of {sorted(set(found) ^ set(expected))}"
    worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
    worst = max(worst, *(abs(a - b) for a, b in zip(losses, expected_losses, strict=True)))
    return "" if worst <= TOLERANCE else f"a difference of {worst:.1e}"


def subsets(streams: Iterable[str], fusions: Iterable[str]) -> Iterator[Case]:
    """Yield models of every single objective and every pair."""
    for stream in streams:
        for fusion in fusions:
            for names in [(name,) for name in OBJECTIVE_NAMES] + PAIRS:
                if not (fusion == "late" and "itm" in names):
                    case = pretraining_case(
                        stream, "default", fusion=fusion, objective_weights=dict.fromkeys(names, 1.0)
                    )
                    case.name += f" {' '.join(names)}"
                    yield case


def _whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def main(everything: bool) -> int:
    """Print a line for each model that differs, then how many were compared; return how many differ."""
    split = list(every_case() if everything else mechanism_cases())
    objectives = subsets(STREAMS, ("early", "late", "hybrid") if everything else ("early",))
    whole = [*objectives, *(split if everything else ())]
    if not everything:
        whole = [case for case in whole if len(case.config.objective_weights) == 1]
    differ = 0
    for how, cases in ((by_plan, split), (by_accelerate, split), (by_ddp, whole)):
        for case in cases:
            difference = compare(case, how)
            differ += bool(difference)
            if difference and dist.get_rank() == 0:
                print(f"{how.__name__} {case.name}: {difference}", flush=True)
        if dist.get_rank() == 0:
            print(f"{how.__name__}: {len(cases)} models compared", flush=True)
    return differ


if __name__ == "__main__":
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    ACCELERATOR = Accelerator(cpu=True)
    ACCELERATOR.state.fsdp_plugin = plugin
    failed = main("--all" in sys.argv)
    dist.destroy_process_group()
    sys.exit(failed > 0)
