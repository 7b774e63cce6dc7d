"""Data for downstream tasks: datasets, inputs, labels and the collator."""
