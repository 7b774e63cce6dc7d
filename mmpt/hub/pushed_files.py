"""Which files of a folder a push sends: those of a saved model, processor and run by name, and never others."""

import fnmatch
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
CONFIGS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    ADAPTER_CONFIG,
)
"""The files that describe a saved model or processor. They also name the Python files that belong to it."""
TOKENIZER = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "normalizer.json",
    "prophetnet.tokenizer",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "source.spm",
    "spiece.model",
    "spm.model",
    "spm_char.model",
    "target.spm",
    "target_vocab.json",
    "tokenizer.model",
    "vocab-src.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
"""The files that tokenizers of transformers save."""
RUN = (
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "conversion.json",
    "curves.png",
    "log.jsonl",
    "metrics.json",
    "recipe.yaml",
    "sample.json",
)
"""The files that a run or a conversion writes beside its model, without the texts of the evaluation rows."""
RESUMED = (
    "complete.json",
    "global_step*/*",
    "latest",
    "optimizer.bin",
    "optimizer.pt",
    "optimizer_*/*",
    "pytorch_model_fsdp*",
    "rng_state*.pth",
    "running_sums_*.json",
    "scaler.pt",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
    "zero_to_fp32.py",
)
"""The files that only resuming from a checkpoint reads; pushed only if `hub_strategy` asks for checkpoints."""

_MODULE = re.compile(r"\w+(\.\w+)*")


def files_to_push(folder: Path, *, resumable: bool = False) -> list[str]:
    """Return the names of a folder's files that a push sends, sorted.

    Hidden files and links that leave the folder are never among them.

    Args:
        resumable: include what training resumes from; the folder is a checkpoint.

    Raises:
        FileNotFoundError: if a module is missing that a saved class needs.
        ValueError: if a JSON file that lists others is damaged.
    """
    names = {*CONFIGS, *TOKENIZER, *RUN, ADAPTER, WEIGHTS, WEIGHTS_INDEX, *weight_files(folder), *code_files(folder)}
    if resumable:
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        names |= {name for name in found if any(fnmatch.fnmatchcase(name, pattern) for pattern in RESUMED)}
    return sorted(name for name in names if is_inside(folder, name))


def is_inside(folder: Path, name: str) -> bool:
    """Return whether a folder holds a regular file of this name, or a link to one in the same folder."""
    path, root = folder / name, folder.resolve()
    if not path.is_file() or not (target := path.resolve()).is_relative_to(root):
        return False
    return not path.is_symlink() or not any(part.startswith(".") for part in target.relative_to(root).parts)


def left_behind(folder: Path, pushed: list[str]) -> str:
    """Describe the files of a folder that are not pushed: how many, and the first names; empty if there are none."""
    count, entries, kept = 0, [], set(pushed)
    for place, folders, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for path in (here / name for name in (*files, *links)):
            if path.as_posix() not in kept:
                count += 1
                entries.append(path.parts[0] + ("/" if len(path.parts) > 1 else ""))
    if count == 0:
        return ""
    shown = sorted(set(entries))
    more = "" if len(shown) <= 8 else ", ..."
    return f"{count} {'file' if count == 1 else 'files'} left behind: {', '.join(shown[:8])}{more}"


def weight_files(folder: Path) -> list[str]:
    """Return the files that hold a model's weights: the one that transformers loads, or the shards of the index.

    Raises:
        ValueError: if the index is damaged, or names files elsewhere.
    """
    index = folder / WEIGHTS_INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [WEIGHTS]
    shards = _read_object(index).get("weight_map")
    names = sorted(set(shards.values())) if isinstance(shards, dict) and shards else []
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise MmptValueError(
            f"{index} does not name shards, expected a weight_map to files *.safetensors beside it; save it again"
        )
    return names


def code_files(folder: Path) -> list[str]:
    """Return the Python files that the folder's JSON files refer to, and those that these import.

    Raises:
        FileNotFoundError: if one is missing: the classes could not be loaded.
        ValueError: if one is not text.
    """
    waiting = [module for name in CONFIGS if (folder / name).is_file() for module in _modules(folder / name)]
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        name = f"{module}.py"
        if name in found or not _MODULE.fullmatch(module):
            continue
        if not is_inside(folder, name):
            raise MmptFileNotFoundError(
                f"{folder} lacks {name}, which its configuration or code refers to; save the model or processor again"
            )
        found.add(name)
        try:
            waiting += get_relative_imports(folder / name)
        except UnicodeDecodeError as error:
            raise MmptValueError(f"{folder / name} is not Python in UTF-8 ({error}); save it again") from None
    return sorted(found)


def _modules(file: Path) -> Iterator[str]:
    """Yield the modules of `auto_map` and of `custom_pipelines`, wherever they stand in a JSON file."""
    waiting: list[Any] = [_read_object(file)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        waiting += part.values()
        pipelines = part.get("custom_pipelines")
        implementations = pipelines.values() if isinstance(pipelines, dict) else []
        classes = [each.get("impl") for each in implementations if isinstance(each, dict)]
        named = part.get("auto_map")
        for value in named.values() if isinstance(named, dict) else [named]:
            classes += value if isinstance(value, list) else [value]  # a tokenizer has a slow and a fast class
        for name in classes:
            if isinstance(name, str) and "--" not in name and "." in name:  # "--": in another repository
                yield name.rpartition(".")[0]


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{file} is not valid JSON ({error}); save it again") from None
    if not isinstance(content, dict):
        raise MmptValueError(f"{file} holds a {type(content).__name__}, expected a JSON object; save it again")
    return content
