# %% [markdown]
# # A policy and a channel of one's own
#
# A policy that sends the first 32 drafts of an answer whatever the phone thinks of them, since what comes later hangs
# on them; on a channel that is blocked for a fifth of the time. Both are functions in `own.py` beside this file: a
# scenario names them `module:object`, and runs them only with `allow_plugins`.

# %%
from uhlm_sim import load, run

cell = {"traffic.devices": 10, "uplink.bandwidth_hz": 20e6, "replications": 4, "duration_s": 20.0, "warmup_s": 5.0}
policies = [
    {"kind": "hlm"},
    {"kind": "own:careful_start", "name": "all", "params": {"level": 0.9, "checked": 0}},
    {"kind": "own:careful_start", "name": "careful", "params": {"level": 0.9, "checked": 32}},
]
channels = {"channel.kind": ["rayleigh", "own:blocked"]}
results = run(load("quickstart", {**cell, "policy": policies, "sweep": channels}), allow_plugins=True)

# %% [markdown]
# Of a sweep, means, ratios and differences are tables with a row for each point.

# %%
speed = results.ratio("careful", "all", "token_throughput")
distance = results.difference("careful", "all", "distribution_error")
for channel, ratio, moved in zip(channels["channel.kind"], speed.itertuples(), distance.itertuples(), strict=True):
    print(
        f"{channel}: the careful start commits {ratio.mean:.2f} ({ratio.ci95_low:.2f} to {ratio.ci95_high:.2f}) times "
        f"the tokens; the distance to the LLM's law changes by {moved.mean:.4f} ({moved.ci95_low:.4f} to "
        f"{moved.ci95_high:.4f}) a token."
    )

# %% [markdown]
# Answers under a policy of one's own weren't recorded: where a kept draft leaves the tree of recorded passes, its walk
# goes on from HLM's text. `exact_share` says how many tokens came before that.

# %%
exact = results.mean("careful", "exact_share")["mean"].min()
nearer = [name for name, high in zip(channels["channel.kind"], distance["ci95_high"], strict=True) if high < 0]
print(f"Nearer to the LLM's law, beyond chance, on: {', '.join(nearer) or 'neither'}. {exact:.0%} of tokens are exact.")
