"""Pairs of text and image: datasets, streaming and checks."""
