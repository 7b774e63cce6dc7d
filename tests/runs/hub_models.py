"""Push a model of every public class, and all that goes wrong, to the Hub that HF_ENDPOINT names: a process of its own,
because the libraries of the Hub read their settings once.

python tests/runs/hub_models.py CASES

CASES gets cases.json, batches and outputs for clean.py, and errors.json.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback
from typer.testing import CliRunner

from mmpt import MmptImageProcessor, MmptProcessor, RegionStore, RegionStoreWriter
from mmpt.commands.main import app
from tests.factories.examples import TOKENIZER, random_regions
from tests.factories.hub_saved import Saved, converted, every_class, outputs_of
from tests.factories.models import tiny_batch, tiny_pretraining
from tests.factories.training import tiny_collator, tiny_model, tiny_trainer
from tests.mmpt.training.test_pretraining import GENERATED, recipe_file

CASES = Path(sys.argv[1])
RUNNER = CliRunner()
LITTER = (".env", "id_rsa", "optimizer.pt", "train.py", "wandb/run/files/config.yaml")


class WaitForPush(TrainerCallback):
    """End each push before training goes on: the next save would change the files while they are sent."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_save(self, *arguments: Any, **others: Any) -> None:
        self.trainer._finish_current_push()


def remember(saved: Saved) -> dict[str, str]:
    save_file(saved.batch, CASES / f"{saved.name}.batch.safetensors")
    outputs = {name: value.contiguous() for name, value in outputs_of(saved.model.eval(), saved.batch).items()}
    save_file(outputs, CASES / f"{saved.name}.outputs.safetensors")
    return {"name": saved.name, "source": f"tester/{saved.name}", "auto": saved.auto}


def push(*words: Any, **environment: str) -> str:
    """Run `mmpt push` and return what it prints; with an error, the error."""
    result = RUNNER.invoke(app, ["push", *map(str, words)], env=environment)
    return result.stdout.strip() if result.exit_code == 0 else f"{result.exit_code} {result.stderr.strip()}"


def add_litter(folder: Path) -> None:
    """Put files into a folder that are not for others."""
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a secret")


def is_token_in(path: Path) -> bool:
    return path.is_file() and b"hf_token" in path.read_bytes()


def main() -> None:
    cases: list[dict[str, str]] = []
    for saved in (*every_class(), *converted(CASES)):
        saved.model.push_to_hub(f"tester/{saved.name}")
        cases.append(remember(saved))
    MmptProcessor(MmptImageProcessor(max_regions=2), TOKENIZER).push_to_hub("tester/processor")
    cases.append({"name": "processor", "source": "tester/processor", "auto": "AutoProcessor"})

    sharded = Saved("sharded", tiny_pretraining("single", attention="sdpa"), tiny_batch(), "AutoModelForPreTraining")
    sharded.model.save_pretrained(CASES / "sharded", max_shard_size="10KB", push_to_hub=True, repo_id="tester/sharded")
    cases.append(remember(sharded))

    model = tiny_model()
    processor = tiny_collator(model).processor
    add_litter(CASES / "trainer")
    add_litter(CASES / "run")
    add_litter(CASES / "sharded")
    trainer = tiny_trainer(
        CASES / "trainer",
        model,
        push_to_hub=True,
        hub_model_id="tester/trainer",
        hub_strategy="checkpoint",
        hub_token="hf_token",
        save_strategy="steps",
        save_steps=2,
        hub_always_push=True,
    )
    trainer.processing_class = processor
    trainer.add_callback(WaitForPush(trainer))
    trainer.train()
    trainer._finish_current_push()
    trainer.push_to_hub()
    batch = tiny_batch() | {"input_ids": tiny_batch()["input_ids"] % 40}
    cases.append(remember(Saved("trainer", model, batch, "AutoModelForPreTraining")))
    commits = [commit.title for commit in HfApi().list_repo_commits("tester/trainer")]

    folder = CASES / "sharded"
    said: dict[str, Any] = {"commits": commits}
    said["tokens"] = [str(path) for path in (CASES / "trainer").rglob("*") if is_token_in(path)]
    said["private"] = push(folder, "tester/private", "--private")
    said["refused"] = push(folder, "tester/refused", HF_TOKEN="hf_wrong")
    said["read only"] = push(folder, "tester/refused", HF_TOKEN="hf_read")
    said["dropped"] = push(folder, "tester/dropped")  # the server breaks this connection
    said["again"] = push(folder, "tester/dropped-once")  # and this one the first time, before anything is there
    said["again"] = [said["again"], push(folder, "tester/dropped-once")]
    said["no model"] = push(CASES / "trainer" / "checkpoint-2" / "nothing", "tester/none")
    shard = next(folder.glob("model-00002-*"))
    kept = shard.read_bytes()
    shard.write_bytes(kept[:-5])
    said["damaged"] = push(folder, "tester/none")
    shard.unlink()
    said["missing"] = push(folder, "tester/none")
    shard.write_bytes(kept)
    recipe = recipe_file(CASES, GENERATED)
    options = ["--output_dir", str(CASES / "run"), "--push_to_hub", "--hub_model_id", "tester/run"]
    ended = RUNNER.invoke(app, ["pretrain", str(recipe), *options])
    cases.append({"name": "run", "source": "tester/run", "auto": "README.md"})
    said["run"] = [ended.exit_code, ended.stderr[-2000:]]
    said["run tokens"] = [str(path) for path in (CASES / "run").rglob("*") if is_token_in(path)]
    options[1] = str(CASES / "read-only-run")
    ended = RUNNER.invoke(app, ["pretrain", str(recipe), *options], env={"HF_TOKEN": "hf_read"})
    logs = (CASES / "read-only-run" / "log.jsonl").exists()
    said["read only run"] = [ended.exit_code, ended.stderr[-2000:], logs]
    with RegionStoreWriter(CASES / "store", extractor={"name": "random"}) as writer:
        writer.add(random_regions(2, image_id="one"))
    said["store"] = push(CASES / "store", "tester/store")
    RegionStore.from_hub("tester/store", CASES / "loaded").validate(deep=True)
    (CASES / "cases.json").write_text(json.dumps(cases))
    (CASES / "said.json").write_text(json.dumps(said))
    shutil.rmtree(CASES / "trainer")


if __name__ == "__main__":
    assert os.environ["HF_ENDPOINT"].startswith("http://127.0.0.1:")
    main()
