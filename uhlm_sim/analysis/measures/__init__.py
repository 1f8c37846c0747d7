"""Measures: what the tables of a run come to, as numbers with intervals."""
