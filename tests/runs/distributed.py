"""Train every objective alone and all together, and write each step's losses and the last weights' sum.

Started by `test_trainer_distributed.py`, as one process or through torchrun.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import set_seed

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.training.process_group import leave_process_group
from tests.factories.training import tiny_dataset, tiny_model, tiny_trainer


def main(output: Path, world_size: int, accumulation: int) -> None:
    """Write {case: {"losses": [...], "weights": ..., "evaluation": {...}}} to `output` from the first process."""
    results = {}
    runs = {name: (name,) for name in OBJECTIVE_NAMES} | {"all": OBJECTIVE_NAMES}
    streams = [("single", name) for name in runs] + [("dual", "all")]
    for stream, name in streams:
        set_seed(0)
        model = tiny_model(stream, runs[name])
        trainer = tiny_trainer(
            Path(tempfile.mkdtemp()),
            model,
            evaluation=tiny_dataset(pairs=7, seed=1, for_evaluation=True),
            per_device_train_batch_size=8 // world_size // accumulation,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=accumulation,
            logging_steps=2,  # two windows: sums that were not reset would show
        )
        if trainer.args.world_size != world_size:
            raise RuntimeError(f"got {trainer.args.world_size} processes, expected {world_size}")
        trainer.train()
        steps = [event for event in trainer.state.log_history if "loss" in event]
        evaluation = trainer.evaluate()
        results[f"{stream} {name}"] = {
            "losses": [[event["loss"], *(event[f"{objective}_loss"] for objective in runs[name])] for event in steps],
            "metrics": [[event[f"{o}_{OBJECTIVES[o].metric_name}"] for o in runs[name]] for event in steps],
            "counts": [[event[f"{objective}_count"] for objective in runs[name]] for event in steps],
            "weights": torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()[::50],
            "evaluation": {key: evaluation[f"eval_{key}"] for key in ["loss", *(f"{o}_count" for o in runs[name])]},
        }
    if trainer.is_world_process_zero():
        output.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    leave_process_group()
