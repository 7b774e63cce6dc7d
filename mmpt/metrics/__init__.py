"""Metrics that ship with the package: `evaluate.Metric` subclasses, loaded by import and never from the network.

metric_table         the metrics by name, and `load_metric`
metric_base          what they share: every example once, counts, several processes
metric_inputs        arrays, ids and the errors of bad ones
bootstrap            intervals
vqa_accuracy         with vqa_answers, how answers are made comparable
retrieval_recall     recall at k and median rank, both directions
class_accuracy       of labels, and balanced over classes
group_consistency    groups that are right in every row
box_grounding        a predicted box against the true ones: referring expressions, phrases
masked_predictions   MLM, MRC, MRC-KL and MRFR     matching_auc   ITM
"""
