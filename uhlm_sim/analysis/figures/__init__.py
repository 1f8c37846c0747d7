"""Figures: each draws a table, and has a caption."""
