"""Recipes: YAML files that fully describe a run."""
