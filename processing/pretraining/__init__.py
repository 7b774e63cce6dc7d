"""Data for pre-training: the collator, masking, mismatching and the order of examples."""
