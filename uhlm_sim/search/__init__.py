"""The capacity search: the largest load at which each policy keeps its objectives."""
