"""Damaged feature files for the readers."""
