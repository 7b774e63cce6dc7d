"""Inference: a saved model and its processor as functions of texts and images."""
