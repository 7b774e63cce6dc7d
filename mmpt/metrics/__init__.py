"""Metrics of the package: `evaluate.Metric` subclasses, imported and never downloaded.

metric_table         the metrics by name, and `load_metric`
metric_base          base class: each example counted once, counts, several processes
metric_inputs        checks of arrays and ids
bootstrap            confidence intervals
vqa_accuracy         VQA accuracy; vqa_answers normalises answers
retrieval_recall     recall at k and median rank, both directions
class_accuracy       accuracy of labels, plain and balanced over classes
group_consistency    fraction of groups with every row right
box_grounding        predicted boxes against true ones: referring expressions, phrases
masked_predictions   MLM, MRC, MRC-KL and MRFR     matching_auc   ITM
"""
