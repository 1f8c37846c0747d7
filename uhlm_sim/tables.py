"""The names of the tables' columns, which the cell writes and the analysis reads."""

import pandas as pd

# The legs of a token in their order in time [s]: together they are its time from start to commit.
LEGS = ("device_s", "uplink_wait_s", "airtime_s", "bs_wait_s", "verify_s", "downlink_s")
DECISIONS = pd.CategoricalDtype(["skip", "send"])
OUTCOMES = pd.CategoricalDtype(["skipped", "accepted", "resampled", "generated"])
# Of a whole answer: two cosines of its sentence embedding, and 1 if its code passed its checks, else 0; NaN: not known.
QUALITY = ("quality_cosine", "quality_cosine_reference", "task_passed")
# Metrics of what an answer is made of: null where the answer is another policy's.
OUTPUT_LAW = ("kept_rate", "quality_cosine", "quality_cosine_reference", "task_accuracy")
# Metrics that take for granted that a draft which is sent is judged by its own law.
LLM_LAW = ("distribution_error",)
# What figures need of rounds.parquet, beside the point.
ROUND_COLUMNS = ["policy", "replication", "started_s", "decision", "payload_bits", *LEGS]
# What figures need of tokens.parquet, beside the point; the other columns stay on disk.
TOKEN_COLUMNS = ["policy", "replication", "started_s", "committed_s", "decision", "payload_bits", *LEGS]
