"""Runs that are killed in every phase, by one and two processes, and checkpoints that are damaged: what comes of them.

python -m tests.runs.chaos --kills 40 --flips 1000
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer

from mmpt.recipe.recipe import load_recipe
from mmpt.training.checkpoints import MARKER, checkpoints_of, last_complete_checkpoint, why_incomplete
from mmpt.training.finetuning import finetune
from mmpt.training.preemption import EXIT_STOPPED
from mmpt.training.pretraining import pretrain
from mmpt.training.process_group import leave_process_group
from tests.factories.tasks import write_data
from tests.mmpt.training.test_pretraining import store_and_tables

STEPS = 7
MODEL = """
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16,
  max_position_embeddings: 64, hidden_dropout_prob: 0.1}
"""
TRAINING = f"""
training: {{max_steps: {STEPS}, per_device_train_batch_size: 4, logging_steps: 3, eval_strategy: steps, eval_steps: 3,
  save_strategy: steps, save_steps: 2, save_total_limit: 2, use_cpu: true, disable_tqdm: true, seed: 1}}
"""

Phase = tuple[Any, str, int]
"""Who is killed: where the call of this number of this function begins."""

PHASES: dict[str, Callable[[random.Random], Phase]] = {
    "before the first step": lambda rng: (Trainer, "create_optimizer", 1),
    "in training": lambda rng: (Trainer, "training_step", rng.randint(1, STEPS)),
    "in an evaluation": lambda rng: (Trainer, "prediction_step", rng.randint(1, 3)),
    "while a checkpoint is written": lambda rng: (torch, "save", rng.randint(1, 12)),
    "before a checkpoint is marked": lambda rng: (os, "fsync", rng.randint(1, 3)),
    "while an old checkpoint is deleted": lambda rng: (os, "rmdir", rng.randint(1, 2)),
    "while files are put in their places": lambda rng: (Path, "replace", rng.randint(2, 30)),
}


def make_pretraining(folder: Path) -> Sequence[str]:
    """Write a recipe of pre-training, and return the command line without its output folder."""
    path = folder / "pretrain.yaml"
    path.write_text(MODEL + store_and_tables(folder) + TRAINING)
    return ["pretrain", str(path)]


def make_finetuning(folder: Path) -> Sequence[str]:
    """Write a recipe of fine-tuning, and return the command line without its output folder."""
    store, pairs = write_data(folder, "statements")
    path = folder / "finetune.yaml"
    data = f"data: {{store: {store}, pairs: {pairs}, eval_pairs: {pairs}}}\ntask: {{name: statements, gallery: 2}}\n"
    path.write_text(MODEL + data + TRAINING)
    return ["finetune", str(path)]


def start(command: Sequence[str], log: Path, processes: int = 1, phase: Phase | None = None) -> list[int]:
    """Start a run in forked processes and return their numbers; with a phase the first one kills itself there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            _be_process(log, rank, processes, port)
            if phase is not None and rank == 0:
                _kill_at(*phase)
            _run(command)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            code = 2
        finally:
            os._exit(code)
    return children


def wait(children: Sequence[int]) -> list[int]:
    """Return the exit codes; where one process has died the others are killed, as torchrun does."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if any(code not in (0, EXIT_STOPPED) for code in codes.values()):
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return [codes[child] for child in children]


def finish(command: Sequence[str], log: Path, processes: int = 1) -> None:
    """Run a command to its end.

    Raises:
        AssertionError: with the end of its output, if it fails.
    """
    codes = wait(start(command, log, processes))
    assert codes == [0] * processes, f"{codes}: {log.read_text()[-3000:]}"


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], set[str]]:
    """Return what is left of a run that does not tell the time: weights, log events, names of files."""
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timeless = [
        {key: value for key, value in event.items() if not key.endswith(("_runtime", "_per_second"))}
        for event in events
    ]
    return load_file(folder / "model.safetensors"), timeless, {path.name for path in folder.iterdir()}


def check_equal(folder: Path, undisturbed: Path) -> None:
    """Check that a run ended as an undisturbed one did."""
    (weights, events, names), (others, other_events, other_names) = outcome(folder), outcome(undisturbed)
    assert events == other_events
    assert names == other_names
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
    for checkpoint in checkpoints_of(folder):
        assert why_incomplete(checkpoint) is None


def disturb(
    command: Sequence[str], folder: Path, seconds: float, rng: random.Random, processes: int, how: str, log: Path
) -> str:
    """Start a run and end it: by SIGKILL in a phase or at a random moment, or by SIGTERM. Return how it ended."""
    options = ["--output_dir", str(folder), *command[2:]]
    words = [*command[:2], *options]
    phase = PHASES[how](rng) if how in PHASES else None
    children = start(words, log, processes, phase)
    if phase is None:
        time.sleep(rng.uniform(0, seconds))
        for child in children:
            os.kill(child, signal.SIGTERM if how == "SIGTERM" else signal.SIGKILL)
    codes = wait(children)
    if all(code == 0 for code in codes):
        return "done before"
    if all(code == EXIT_STOPPED for code in codes):
        return "stopped"
    assert -signal.SIGKILL in codes or -signal.SIGTERM in codes, f"{codes}: {log.read_text()[-3000:]}"
    return "killed"


def kill_often(command: Sequence[str], folder: Path, kills: int, processes: int = 1, seed: int = 0) -> dict[str, int]:
    """Disturb so many runs, each until it is done, and check that each ends as an undisturbed one.

    Returns:
        How many disturbances there were by their kind, and how many runs ended equal.
    """
    rng = random.Random(seed)
    log, undisturbed = folder / "log.txt", folder / "undisturbed"
    begun = time.perf_counter()
    finish([*command, "--output_dir", str(undisturbed)], log, processes)
    seconds = time.perf_counter() - begun
    kinds = [*PHASES, "at any moment", "SIGTERM"]
    counts: dict[str, int] = {}
    done = 0
    while done < kills:
        run = folder / f"run-{done}"
        overwrites = rng.random() < 0.3
        if overwrites:  # an older run of another seed lies there
            finish([*command, "--output_dir", str(run), "--training.seed", "2"], log, processes)
            old = load_file(run / "model.safetensors")
        words = [*command, *(["--overwrite"] if overwrites else ["--resume_from_checkpoint", "last"])]
        kind = kinds[done % len(kinds)] if done < len(kinds) else rng.choice(kinds)
        ended = disturb(words, run, seconds, rng, processes, kind, log)
        if overwrites and ended != "done before":
            check_old_is_there(run, old)
            words = [*command, "--resume_from_checkpoint", "last"]
            if not (run / "_earlier_run").is_dir():  # it was stopped before it had moved anything
                words = [*command, "--overwrite"]
        name = f"{kind}, overwriting" if overwrites else kind
        counts[name] = counts.get(name, 0) + (ended != "done before")
        if words[-1] == "last":
            while rng.random() < 0.3:
                disturb(words, run, seconds, rng, processes, rng.choice(kinds), log)
        finish([*words, "--output_dir", str(run)], log, processes)
        check_equal(run, undisturbed)
        shutil.rmtree(run)
        done += 1
    return counts


def check_old_is_there(run: Path, weights: dict[str, torch.Tensor]) -> None:
    """Check that a run that is being replaced is still there, unless the new one is."""
    places = [run / "model.safetensors", *run.glob("_earlier_run*/model.safetensors")]
    kept = any(
        all(torch.equal(value, weights[name]) for name, value in load_file(place).items())
        for place in places
        if place.is_file()
    )
    assert kept or (run / "metrics.json").is_file(), sorted(run.rglob("*"))


def flip_often(checkpoint: Path, flips: int, seed: int = 0) -> int:
    """Flip a byte at so many random places of a checkpoint, and return how many were noticed."""
    rng = random.Random(seed)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    noticed = 0
    for number in range(flips):
        # Half by size, half by file: small files have their share too, the marker among them.
        path = rng.choices(files, sizes if number % 2 else None)[0]
        place, kept = rng.randrange(path.stat().st_size), path.read_bytes()
        path.write_bytes(kept[:place] + bytes([kept[place] ^ (1 << rng.randrange(8))]) + kept[place + 1 :])
        noticed += why_incomplete(checkpoint) is not None
        path.write_bytes(kept)
    assert why_incomplete(checkpoint) is None
    return noticed


def resume_damaged(command: Sequence[str], folder: Path, times: int, seed: int = 0) -> int:
    """Damage the newest checkpoint of a finished run, resume, and return how often the one before it was taken."""
    rng = random.Random(seed)
    log, undisturbed = folder / "log.txt", folder / "whole"
    finish([*command, "--output_dir", str(undisturbed)], log)
    taken = 0
    for number in range(times):
        run = folder / f"damaged-{number}"
        shutil.copytree(undisturbed, run)
        newest = last_complete_checkpoint(run)
        assert newest is not None
        path = rng.choice([path for path in newest.rglob("*") if path.is_file()])
        damage = [b"", b"\0" * path.stat().st_size, b"[]", b"null", b"{}", b"7", b"\xff\xfe\0", b"[" * 100_000]
        path.write_bytes(rng.choice(damage if path.name == MARKER else damage[:2]))
        finish([*command, "--output_dir", str(run), "--resume_from_checkpoint", "last"], log)
        check_equal(run, undisturbed)
        taken += why_incomplete(newest) is None  # written anew, so training began at an older one
        shutil.rmtree(run)
    return taken


def _be_process(log: Path, rank: int, processes: int, port: int) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )


def _run(command: Sequence[str]) -> None:
    kind, recipe, *overrides = command
    run = {"pretrain": pretrain, "finetune": finetune}[kind]
    run(load_recipe(recipe, overrides, command=kind))  # type: ignore[arg-type]
    leave_process_group()


def _kill_at(owner: Any, name: str, number: int) -> None:
    """Let this process kill itself when a function is called for the so-manieth time."""
    original, left = getattr(owner, name), [number]

    def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def main() -> None:
    """Disturb, damage, check, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="of each command, with one process and with two")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for make in (make_pretraining, make_finetuning):
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                command = make(Path(folder))
                counts = kill_often(command, Path(folder), arguments.kills, processes, arguments.seed)
                took = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()) if count)
                name = f"{command[0]}, {processes} process{'es' if processes > 1 else ''}"
                print(f"{name}: {arguments.kills} runs disturbed ({took}), all ended bit-equal", flush=True)
                if processes == 1:
                    checkpoint = last_complete_checkpoint(Path(folder) / "undisturbed")
                    assert checkpoint is not None
                    noticed = flip_often(checkpoint, arguments.flips, arguments.seed)
                    print(f"{command[0]}: {noticed} of {arguments.flips} flipped bytes noticed", flush=True)
                    times = max(1, arguments.kills // 4)
                    taken = resume_damaged(command, Path(folder), times, arguments.seed)
                    print(
                        f"{command[0]}: {taken} of {times} damaged checkpoints passed over, all bit-equal", flush=True
                    )
                    if noticed < arguments.flips or taken < times:
                        sys.exit(1)


if __name__ == "__main__":
    main()
