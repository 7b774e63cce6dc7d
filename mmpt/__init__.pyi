"""The public names, each with the module that defines it; `__init__.py` reads this list."""

from mmpt.configuration.configuration_bottom_up import BottomUpConfig as BottomUpConfig
from mmpt.configuration.configuration_mmpt import (
    MmptDualStreamConfig as MmptDualStreamConfig,
)
from mmpt.configuration.configuration_mmpt import (
    MmptSingleStreamConfig as MmptSingleStreamConfig,
)
from mmpt.example.loading import load_example as load_example
from mmpt.explanations.explanation import explain as explain
from mmpt.explanations.figures import draw_explanation as draw_explanation
from mmpt.explanations.figures import draw_grounding as draw_grounding
from mmpt.explanations.figures import draw_ranking as draw_ranking
from mmpt.inference.pipeline import MmptPipeline as MmptPipeline
from mmpt.inference.retrieval import RetrievalIndex as RetrievalIndex
from mmpt.metrics.metric_table import load_metric as load_metric
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForGrounding as MmptDualStreamForGrounding,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForImageAndTextRetrieval as MmptDualStreamForImageAndTextRetrieval,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForImagesAndTextClassification as MmptDualStreamForImagesAndTextClassification,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForMultipleChoice as MmptDualStreamForMultipleChoice,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForQuestionAnswering as MmptDualStreamForQuestionAnswering,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForRegionToPhraseAlignment as MmptDualStreamForRegionToPhraseAlignment,
)
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForSequenceClassification as MmptDualStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.fusion import MmptLateFusion as MmptLateFusion
from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector as BottomUpDetector
from mmpt.modeling_mmpt.modeling_dual_stream import (
    MmptDualStreamForPreTraining as MmptDualStreamForPreTraining,
)
from mmpt.modeling_mmpt.modeling_dual_stream import (
    MmptDualStreamModel as MmptDualStreamModel,
)
from mmpt.modeling_mmpt.modeling_single_stream import (
    MmptSingleStreamForPreTraining as MmptSingleStreamForPreTraining,
)
from mmpt.modeling_mmpt.modeling_single_stream import (
    MmptSingleStreamModel as MmptSingleStreamModel,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForGrounding as MmptSingleStreamForGrounding,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForImageAndTextRetrieval as MmptSingleStreamForImageAndTextRetrieval,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForImagesAndTextClassification as MmptSingleStreamForImagesAndTextClassification,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForMultipleChoice as MmptSingleStreamForMultipleChoice,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForQuestionAnswering as MmptSingleStreamForQuestionAnswering,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForRegionToPhraseAlignment as MmptSingleStreamForRegionToPhraseAlignment,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForSequenceClassification as MmptSingleStreamForSequenceClassification,
)
from mmpt.predecessors.conversion import convert as convert
from mmpt.predecessors.conversion import from_predecessor as from_predecessor
from mmpt.predecessors.predecessor_export import export_predecessor as export_predecessor
from mmpt.processing.annotations.annotation_formats import read_annotations as read_annotations
from mmpt.processing.image_processing_bottom_up import BottomUpImageProcessor as BottomUpImageProcessor
from mmpt.processing.image_processing_mmpt import MmptImageProcessor as MmptImageProcessor
from mmpt.processing.pairs.checks import check_pairs as check_pairs
from mmpt.processing.pairs.dataset import PairDataset as PairDataset
from mmpt.processing.pairs.streaming import StreamedPairDataset as StreamedPairDataset
from mmpt.processing.pretraining.collator import MmptDataCollator as MmptDataCollator
from mmpt.processing.pretraining.epochs import EpochCallback as EpochCallback
from mmpt.processing.processing_mmpt import MmptProcessor as MmptProcessor
from mmpt.processing.region_extraction.image_regions import ImageRegions as ImageRegions
from mmpt.processing.region_extraction.image_sources import open_images as open_images
from mmpt.processing.region_extraction.region_extractor import RegionExtractor as RegionExtractor
from mmpt.processing.region_readers.open_features import open_features as open_features
from mmpt.processing.regions import Regions as Regions
from mmpt.processing.store.filling import fill_store as fill_store
from mmpt.processing.store.merge import merge_stores as merge_stores
from mmpt.processing.store.region_store import RegionStore as RegionStore
from mmpt.processing.store.repair import repair_store as repair_store
from mmpt.processing.store.writer import RegionStoreWriter as RegionStoreWriter
from mmpt.processing.tasks.collator import TaskDataCollator as TaskDataCollator
from mmpt.processing.tasks.dataset import TaskDataset as TaskDataset
from mmpt.processing.word_tokenizer import build_word_tokenizer as build_word_tokenizer
from mmpt.training.base_trainer import MmptTrainingArguments as MmptTrainingArguments
from mmpt.training.finetuning_trainer import FineTuningTrainer as FineTuningTrainer
from mmpt.training.trainer import MmptTrainer as MmptTrainer

__version__: str

def register_auto_classes() -> None: ...
