"""The single-stream models of the downstream tasks."""

from mmpt.configuration.configuration_mmpt import MmptSingleStreamConfig
from mmpt.modeling_mmpt.classification_tasks import (
    MmptForImagesAndTextClassification,
    MmptForMultipleChoice,
    MmptForQuestionAnswering,
    MmptForSequenceClassification,
)
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamModel
from mmpt.modeling_mmpt.region_tasks import MmptForGrounding, MmptForRegionToPhraseAlignment
from mmpt.modeling_mmpt.retrieval_task import MmptForImageAndTextRetrieval


class MmptSingleStreamForQuestionAnswering(MmptForQuestionAnswering):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForSequenceClassification(MmptForSequenceClassification):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForImagesAndTextClassification(MmptForImagesAndTextClassification):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForMultipleChoice(MmptForMultipleChoice):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForImageAndTextRetrieval(MmptForImageAndTextRetrieval):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForGrounding(MmptForGrounding):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel


class MmptSingleStreamForRegionToPhraseAlignment(MmptForRegionToPhraseAlignment):
    config: MmptSingleStreamConfig
    backbone_class = MmptSingleStreamModel
