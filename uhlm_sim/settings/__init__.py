"""The tables of a scenario file, one module a table or two: every key's type, default and bounds."""
