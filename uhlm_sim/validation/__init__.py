"""Validation: claims of theory, the simulator's values for them, and one verdict over all."""
