"""Write golden_export/: small folders as this version saves them, which later versions must load to the same outputs.

PYTHONPATH=. python tests/runs/golden_export.py VERSION

The code that lies in a saved folder is left out: where mmpt is imported its own is used.
"""

import sys

import torch
from safetensors.torch import save_file
from tests.hub_saved import outputs_of

from mmpt import MmptImageProcessor, MmptProcessor
from tests.factories.examples import TOKENIZER
from tests.factories.models import tiny_batch, tiny_pretraining
from tests.factories.paths import PREDECESSORS
from tests.factories.task_models import task_batch, tiny_task

FOLDER = PREDECESSORS / "golden_export"


def main(version: str) -> None:
    """Write a folder for each stream."""
    models = {
        "single-pretraining": (tiny_pretraining("single", attention="sdpa"), tiny_batch()),
        "dual-QuestionAnswering": (tiny_task("dual", "QuestionAnswering"), task_batch("QuestionAnswering")),
    }
    for name, (model, batch) in models.items():
        out = FOLDER / version / name
        model.save_pretrained(out)
        MmptProcessor(MmptImageProcessor(max_regions=2), TOKENIZER).save_pretrained(out)
        save_file(batch, out / "batch.safetensors")
        save_file(
            {key: value.contiguous() for key, value in outputs_of(model, batch).items()}, out / "outputs.safetensors"
        )
        for code in out.glob("*.py"):
            code.unlink()


if __name__ == "__main__":
    torch.manual_seed(0)
    main(sys.argv[1])
