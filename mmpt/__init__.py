"""Region-feature vision-and-language pre-training on Hugging Face Transformers.

The public names are those of `__init__.pyi`, the one list that type checkers, `dir(mmpt)` and imports read.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_here = Path(__file__).resolve().parent
if not (_here / "configuration").is_dir():  # a checkout: the other layers are this folder's siblings
    __path__.append(str(_here.parent))

_MODULES = {
    alias.name: node.module
    for node in ast.parse((_here / "__init__.pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
"""Public name -> the module that defines it."""

_EXAMPLE_TASKS = ("mmpt-fill-mask", "mmpt-matching")
"""The pipelines that the packaged model serves."""

__all__ = sorted([*_MODULES, "register_auto_classes"])  # pyright: ignore[reportUnsupportedDunderAll]


def register_auto_classes() -> None:
    """Register this package's classes with the Auto classes and pipelines of transformers.

    `import mmpt` does it; the command line does it when a command needs it.
    """
    import transformers
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForMaskedLM, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from mmpt.configuration.configuration_bottom_up import BottomUpConfig
    from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS
    from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector
    from mmpt.modeling_mmpt.pipelines_mmpt import PIPELINES
    from mmpt.modeling_mmpt.task_models import BACKBONES, PRETRAINING_MODELS, TASK_MODELS
    from mmpt.processing.image_processing_bottom_up import BottomUpImageProcessor
    from mmpt.processing.image_processing_mmpt import MmptImageProcessor
    from mmpt.processing.processing_mmpt import MmptProcessor

    for stream, config in MMPT_CONFIGS.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoProcessor.register(config, MmptProcessor, exist_ok=True)
        AutoImageProcessor.register(config, image_processor_classes={"pil": MmptImageProcessor}, exist_ok=True)
        by_auto_class: dict[str, list[Any]] = {}
        for by_stream in (BACKBONES, PRETRAINING_MODELS, *TASK_MODELS.values()):
            model = by_stream[stream]
            models = by_auto_class.setdefault(model.auto_name, [])
            if model not in models:
                models.append(model)
        for name, models in by_auto_class.items():
            # Of several classes transformers takes the one that config.json names, or the first.
            found = tuple(models) if len(models) > 1 else models[0]
            getattr(transformers, name).register(config, found, exist_ok=True)
        AutoModelForMaskedLM.register(config, PRETRAINING_MODELS[stream], exist_ok=True)
    AutoConfig.register(BottomUpConfig.model_type, BottomUpConfig, exist_ok=True)
    AutoModel.register(BottomUpConfig, BottomUpDetector, exist_ok=True)
    AutoImageProcessor.register(BottomUpConfig, image_processor_classes={"pil": BottomUpImageProcessor}, exist_ok=True)
    for task, pipeline_class in PIPELINES.items():
        if PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl") is not pipeline_class:
            auto_class = getattr(transformers, pipeline_class.auto_name)
            # Without model= a pipeline takes the packaged one. transformers wants a revision, which a folder has not.
            default = {"model": (str(_here / "example" / "single-stream"), "main")} if task in _EXAMPLE_TASKS else None
            PIPELINE_REGISTRY.register_pipeline(
                task, pipeline_class, pt_model=auto_class, default=default, type="multimodal"
            )


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the trainer alone costs more than the rest of `import mmpt`."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mmpt' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _started_as_command() -> bool:
    """Return whether this process is `mmpt ...` or `python -m mmpt ...`, whose --help must not wait for torch.

    The word of the command line that names the program stands right before its arguments. The interpreter's own record
    is read, because a spawned worker process gets a copy of its parent's sys.argv.
    """
    program = sys.orig_argv[-len(sys.argv) :][:1]
    return [Path(word).stem for word in program] == ["mmpt"]


if not _started_as_command():
    register_auto_classes()
