"""Model configurations, error classes, and the code that makes saved folders self-contained."""

if __name__ != "mmpt.configuration":  # in a checkout the bare folder can be imported too, which defines classes twice
    raise ImportError(f"got the import of {__name__!r}, expected 'mmpt.configuration'; write mmpt. in front")
