"""The base station's GPUs: batches, memory and service times."""
