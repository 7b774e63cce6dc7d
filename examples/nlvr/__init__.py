"""NLVR v1 as an ordinary store and tables."""
