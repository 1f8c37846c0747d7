"""One cell: the SimPy processes of phones, radio and GPUs."""
