"""The dual-stream models of the downstream tasks."""

from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig
from mmpt.modeling_mmpt.classification_tasks import (
    MmptForImagesAndTextClassification,
    MmptForMultipleChoice,
    MmptForQuestionAnswering,
    MmptForSequenceClassification,
)
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamModel
from mmpt.modeling_mmpt.region_tasks import MmptForGrounding, MmptForRegionToPhraseAlignment
from mmpt.modeling_mmpt.retrieval_task import MmptForImageAndTextRetrieval


class MmptDualStreamForQuestionAnswering(MmptForQuestionAnswering):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForSequenceClassification(MmptForSequenceClassification):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForImagesAndTextClassification(MmptForImagesAndTextClassification):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForMultipleChoice(MmptForMultipleChoice):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForImageAndTextRetrieval(MmptForImageAndTextRetrieval):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForGrounding(MmptForGrounding):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel


class MmptDualStreamForRegionToPhraseAlignment(MmptForRegionToPhraseAlignment):
    config: MmptDualStreamConfig
    backbone_class = MmptDualStreamModel
