"""Annotation files of public corpora, read into pair tables."""
