"""The two models, their layers and their heads."""

if __name__ != "mmpt.modeling_mmpt":  # a checkout would also import this folder by itself, and make every class twice
    raise ImportError(f"got the import of {__name__!r}, expected 'mmpt.modeling_mmpt'; write mmpt. in front")
