"""Benchmarks: what a step costs, measured through the product."""
