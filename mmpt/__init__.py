"""Region-feature vision-and-language pre-training on Hugging Face Transformers."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

_here = Path(__file__).resolve().parent
if not (_here / "configuration").is_dir():  # a checkout: the other rooms are this folder's siblings
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
    from mmpt.example.loading import load_example
    from mmpt.explanations.explanation import explain
    from mmpt.explanations.figures import draw_explanation, draw_grounding, draw_ranking
    from mmpt.inference.pipeline import MmptPipeline
    from mmpt.inference.retrieval import RetrievalIndex
    from mmpt.metrics.metric_table import load_metric
    from mmpt.modeling_mmpt.dual_stream_tasks import (
        MmptDualStreamForGrounding,
        MmptDualStreamForImageAndTextRetrieval,
        MmptDualStreamForImagesAndTextClassification,
        MmptDualStreamForMultipleChoice,
        MmptDualStreamForQuestionAnswering,
        MmptDualStreamForRegionToPhraseAlignment,
        MmptDualStreamForSequenceClassification,
    )
    from mmpt.modeling_mmpt.fusion import MmptLateFusion
    from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
    from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel
    from mmpt.modeling_mmpt.single_stream_tasks import (
        MmptSingleStreamForGrounding,
        MmptSingleStreamForImageAndTextRetrieval,
        MmptSingleStreamForImagesAndTextClassification,
        MmptSingleStreamForMultipleChoice,
        MmptSingleStreamForQuestionAnswering,
        MmptSingleStreamForRegionToPhraseAlignment,
        MmptSingleStreamForSequenceClassification,
    )
    from mmpt.predecessors.conversion import convert, from_predecessor
    from mmpt.predecessors.predecessor_export import export_predecessor
    from mmpt.processing.annotations.annotation_formats import read_annotations
    from mmpt.processing.image_processing_mmpt import MmptImageProcessor
    from mmpt.processing.pairs.checks import check_pairs
    from mmpt.processing.pairs.dataset import PairDataset
    from mmpt.processing.pairs.streaming import StreamedPairDataset
    from mmpt.processing.pretraining.collator import MmptDataCollator
    from mmpt.processing.pretraining.epochs import EpochCallback
    from mmpt.processing.processing_mmpt import MmptProcessor
    from mmpt.processing.region_extraction.image_regions import ImageRegions
    from mmpt.processing.region_extraction.image_sources import open_images
    from mmpt.processing.region_extraction.region_extractor import RegionExtractor
    from mmpt.processing.region_readers.open_features import open_features
    from mmpt.processing.regions import Regions
    from mmpt.processing.store.filling import fill_store
    from mmpt.processing.store.merge import merge_stores
    from mmpt.processing.store.region_store import RegionStore
    from mmpt.processing.store.repair import repair_store
    from mmpt.processing.store.writer import RegionStoreWriter
    from mmpt.processing.tasks.collator import TaskDataCollator
    from mmpt.processing.tasks.dataset import TaskDataset
    from mmpt.processing.word_tokenizer import build_word_tokenizer
    from mmpt.training.finetuning_trainer import FineTuningTrainer
    from mmpt.training.trainer import MmptTrainer, MmptTrainingArguments

__version__ = "0.1.0"

__all__ = [
    "EpochCallback",
    "FineTuningTrainer",
    "ImageRegions",
    "MmptDataCollator",
    "MmptDualStreamConfig",
    "MmptDualStreamForGrounding",
    "MmptDualStreamForImageAndTextRetrieval",
    "MmptDualStreamForImagesAndTextClassification",
    "MmptDualStreamForMultipleChoice",
    "MmptDualStreamForPreTraining",
    "MmptDualStreamForQuestionAnswering",
    "MmptDualStreamForRegionToPhraseAlignment",
    "MmptDualStreamForSequenceClassification",
    "MmptDualStreamModel",
    "MmptImageProcessor",
    "MmptLateFusion",
    "MmptPipeline",
    "MmptProcessor",
    "MmptSingleStreamConfig",
    "MmptSingleStreamForGrounding",
    "MmptSingleStreamForImageAndTextRetrieval",
    "MmptSingleStreamForImagesAndTextClassification",
    "MmptSingleStreamForMultipleChoice",
    "MmptSingleStreamForPreTraining",
    "MmptSingleStreamForQuestionAnswering",
    "MmptSingleStreamForRegionToPhraseAlignment",
    "MmptSingleStreamForSequenceClassification",
    "MmptSingleStreamModel",
    "MmptTrainer",
    "MmptTrainingArguments",
    "PairDataset",
    "RegionExtractor",
    "RegionStore",
    "RegionStoreWriter",
    "Regions",
    "RetrievalIndex",
    "StreamedPairDataset",
    "TaskDataCollator",
    "TaskDataset",
    "build_word_tokenizer",
    "check_pairs",
    "convert",
    "draw_explanation",
    "draw_grounding",
    "draw_ranking",
    "explain",
    "export_predecessor",
    "fill_store",
    "from_predecessor",
    "load_example",
    "load_metric",
    "merge_stores",
    "open_features",
    "open_images",
    "read_annotations",
    "register_auto_classes",
    "repair_store",
]

_MODULES = {
    "EpochCallback": "mmpt.processing.pretraining.epochs",
    "FineTuningTrainer": "mmpt.training.finetuning_trainer",
    "ImageRegions": "mmpt.processing.region_extraction.image_regions",
    "MmptDataCollator": "mmpt.processing.pretraining.collator",
    "MmptDualStreamConfig": "mmpt.configuration.configuration_mmpt",
    "MmptDualStreamForGrounding": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForImageAndTextRetrieval": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForImagesAndTextClassification": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForMultipleChoice": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForPreTraining": "mmpt.modeling_mmpt.modeling_dual_stream",
    "MmptDualStreamForQuestionAnswering": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForRegionToPhraseAlignment": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamForSequenceClassification": "mmpt.modeling_mmpt.dual_stream_tasks",
    "MmptDualStreamModel": "mmpt.modeling_mmpt.modeling_dual_stream",
    "MmptImageProcessor": "mmpt.processing.image_processing_mmpt",
    "MmptLateFusion": "mmpt.modeling_mmpt.fusion",
    "MmptPipeline": "mmpt.inference.pipeline",
    "MmptProcessor": "mmpt.processing.processing_mmpt",
    "MmptSingleStreamConfig": "mmpt.configuration.configuration_mmpt",
    "MmptSingleStreamForGrounding": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForImageAndTextRetrieval": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForImagesAndTextClassification": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForMultipleChoice": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForPreTraining": "mmpt.modeling_mmpt.modeling_single_stream",
    "MmptSingleStreamForQuestionAnswering": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForRegionToPhraseAlignment": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamForSequenceClassification": "mmpt.modeling_mmpt.single_stream_tasks",
    "MmptSingleStreamModel": "mmpt.modeling_mmpt.modeling_single_stream",
    "MmptTrainer": "mmpt.training.trainer",
    "MmptTrainingArguments": "mmpt.training.trainer",
    "PairDataset": "mmpt.processing.pairs.dataset",
    "RegionExtractor": "mmpt.processing.region_extraction.region_extractor",
    "RegionStore": "mmpt.processing.store.region_store",
    "RegionStoreWriter": "mmpt.processing.store.writer",
    "Regions": "mmpt.processing.regions",
    "RetrievalIndex": "mmpt.inference.retrieval",
    "StreamedPairDataset": "mmpt.processing.pairs.streaming",
    "TaskDataCollator": "mmpt.processing.tasks.collator",
    "TaskDataset": "mmpt.processing.tasks.dataset",
    "build_word_tokenizer": "mmpt.processing.word_tokenizer",
    "check_pairs": "mmpt.processing.pairs.checks",
    "convert": "mmpt.predecessors.conversion",
    "draw_explanation": "mmpt.explanations.figures",
    "draw_grounding": "mmpt.explanations.figures",
    "draw_ranking": "mmpt.explanations.figures",
    "explain": "mmpt.explanations.explanation",
    "export_predecessor": "mmpt.predecessors.predecessor_export",
    "fill_store": "mmpt.processing.store.filling",
    "from_predecessor": "mmpt.predecessors.conversion",
    "load_example": "mmpt.example.loading",
    "load_metric": "mmpt.metrics.metric_table",
    "merge_stores": "mmpt.processing.store.merge",
    "open_features": "mmpt.processing.region_readers.open_features",
    "open_images": "mmpt.processing.region_extraction.image_sources",
    "read_annotations": "mmpt.processing.annotations.annotation_formats",
    "repair_store": "mmpt.processing.store.repair",
}


_EXAMPLE_TASKS = ("mmpt-fill-mask", "mmpt-matching")
"""What the packaged models do."""


def register_auto_classes() -> None:
    """Let the Auto classes of transformers know this package's.

    `import mmpt` does it; the command line does it when a command needs it.
    """
    import transformers
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForMultipleChoice,
        AutoModelForPreTraining,
        AutoModelForSequenceClassification,
        AutoModelForVisualQuestionAnswering,
        AutoProcessor,
    )
    from transformers.pipelines import PIPELINE_REGISTRY

    from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig
    from mmpt.modeling_mmpt.dual_stream_tasks import (
        MmptDualStreamForGrounding,
        MmptDualStreamForImageAndTextRetrieval,
        MmptDualStreamForImagesAndTextClassification,
        MmptDualStreamForMultipleChoice,
        MmptDualStreamForQuestionAnswering,
        MmptDualStreamForRegionToPhraseAlignment,
        MmptDualStreamForSequenceClassification,
    )
    from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining, MmptDualStreamModel
    from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining, MmptSingleStreamModel
    from mmpt.modeling_mmpt.pipelines_mmpt import PIPELINES
    from mmpt.modeling_mmpt.single_stream_tasks import (
        MmptSingleStreamForGrounding,
        MmptSingleStreamForImageAndTextRetrieval,
        MmptSingleStreamForImagesAndTextClassification,
        MmptSingleStreamForMultipleChoice,
        MmptSingleStreamForQuestionAnswering,
        MmptSingleStreamForRegionToPhraseAlignment,
        MmptSingleStreamForSequenceClassification,
    )
    from mmpt.processing.image_processing_mmpt import MmptImageProcessor
    from mmpt.processing.processing_mmpt import MmptProcessor

    # Of several classes transformers takes the one that config.json names, or the first. The tasks beside the backbones
    # are those that transformers has no Auto class for.
    plain: Any = (
        (
            MmptSingleStreamModel,
            MmptSingleStreamForGrounding,
            MmptSingleStreamForImageAndTextRetrieval,
            MmptSingleStreamForImagesAndTextClassification,
            MmptSingleStreamForRegionToPhraseAlignment,
        ),
        (
            MmptDualStreamModel,
            MmptDualStreamForGrounding,
            MmptDualStreamForImageAndTextRetrieval,
            MmptDualStreamForImagesAndTextClassification,
            MmptDualStreamForRegionToPhraseAlignment,
        ),
    )
    models: dict[Any, tuple[Any, ...]] = {
        AutoModel: plain,
        AutoModelForPreTraining: (MmptSingleStreamForPreTraining, MmptDualStreamForPreTraining),
        AutoModelForMaskedLM: (MmptSingleStreamForPreTraining, MmptDualStreamForPreTraining),
        AutoModelForVisualQuestionAnswering: (MmptSingleStreamForQuestionAnswering, MmptDualStreamForQuestionAnswering),
        AutoModelForSequenceClassification: (
            MmptSingleStreamForSequenceClassification,
            MmptDualStreamForSequenceClassification,
        ),
        AutoModelForMultipleChoice: (MmptSingleStreamForMultipleChoice, MmptDualStreamForMultipleChoice),
    }
    for number, config in enumerate((MmptSingleStreamConfig, MmptDualStreamConfig)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class, streams in models.items():
            auto_class.register(config, streams[number], exist_ok=True)
        AutoProcessor.register(config, MmptProcessor, exist_ok=True)
        AutoImageProcessor.register(config, image_processor_classes={"pil": MmptImageProcessor}, exist_ok=True)
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


def _started_as_command() -> bool:
    """Return whether this process is `mmpt ...` or `python -m mmpt ...`, whose --help must not wait for torch.

    The word of the command line that names the program stands right before its arguments. The interpreter's own record
    is read, because a spawned worker process gets a copy of its parent's sys.argv.
    """
    program = sys.orig_argv[-len(sys.argv) :][:1]
    return [Path(word).stem for word in program] == ["mmpt"]


if not _started_as_command():
    register_auto_classes()
