"""What a model is: the configurations, and what makes a saved folder complete."""

if __name__ != "mmpt.configuration":  # a checkout would also import this folder by itself, and make every class twice
    raise ImportError(f"got the import of {__name__!r}, expected 'mmpt.configuration'; write mmpt. in front")
