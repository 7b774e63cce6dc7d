"""Readers of the region-feature files that predecessors wrote."""
