"""The model held against theory: claims, what the simulator makes of them, and one verdict over all."""
