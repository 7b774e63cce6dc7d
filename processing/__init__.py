"""From disk to batch: regions, stores, pairs, the processor, masking and the collator."""

if __name__ != "mmpt.processing":  # a checkout would also import this folder by itself, and make every class twice
    raise ImportError(f"got the import of {__name__!r}, expected 'mmpt.processing'; write mmpt. in front")
