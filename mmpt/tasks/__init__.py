"""Downstream tasks: their table, predictions, metrics and error analysis.

table              the table of tasks: inputs, labels, models, metrics; add a new task here
class_names        names and weights of classes
layer_rates        layer-wise learning rates, and freezing
evaluation         load a saved model, predict and score
predictions        predictions from model outputs; `ranking` for retrieval
scoring            metrics of all predictions; `error_analysis` assesses single ones
chance             chance levels
prediction_files   predictions.jsonl
gallery            HTML page of wrong and right predictions
"""
