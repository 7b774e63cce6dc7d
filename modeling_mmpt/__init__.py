"""The two models, their layers and their heads."""
