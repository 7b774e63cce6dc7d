"""Corpora that need no feature file: generated scenes and NLVR, with regions computed from their pixels."""
