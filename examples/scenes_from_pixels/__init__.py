"""Regions from raw images, by a detector trained on the way."""
