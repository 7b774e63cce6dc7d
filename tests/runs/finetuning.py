"""Fine-tune a tiny model and write its evaluation and predictions; started by test_finetuning_distributed.py."""

import json
import sys
from pathlib import Path

from mmpt.recipe.recipe import load_recipe
from mmpt.training.finetuning import finetune
from mmpt.training.process_group import leave_process_group

if __name__ == "__main__":
    recipe, output = Path(sys.argv[1]), Path(sys.argv[2])
    metrics = finetune(load_recipe(recipe, ["--output_dir", str(output), *sys.argv[3:]], command="finetune"))
    leave_process_group()
    (output / "seen.json").write_text(json.dumps(metrics["evaluation"]))
