"""From disk to batch: regions, stores, pairs, the processor, masking and the collator."""
