# %% [markdown]
# # Compare two schemes
#
# How many times as many tokens does the `quickstart` cell commit if its phones send only the drafts that they are
# unsure of (U-HLM) instead of every draft (HLM)? Why, and at what price?

# %%
from uhlm_sim import load, run
from uhlm_sim.analysis.measures.bottleneck import bottleneck_table

short = {"replications": 4, "duration_s": 25.0, "warmup_s": 5.0}  # take these out for narrower intervals
schemes = [{"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.43}]
results = run(load("quickstart", {**short, "policy": schemes}))
hlm, u_hlm = results.policies

# %% [markdown]
# Both schemes met the same fades, prompts and think times, so the ratio is taken replication by replication. Its
# interval is narrower than those of the two means.

# %%
speedup = results.ratio(u_hlm, hlm, "token_throughput")
first_token = results.difference(u_hlm, hlm, "ttft_s.p95")
print(f"{u_hlm} commits {speedup.mean:.2f} times as many tokens ({speedup.ci95_low:.2f} to {speedup.ci95_high:.2f}).")
print(f"The 95th percentile of TTFT changes by {first_token} (in seconds).")

# %% [markdown]
# Why: the station nearest to the most that it can carry limits a scheme.

# %%
stations = bottleneck_table(results)
limits = stations[stations["limits"]].groupby("policy")["station"].agg(" or ".join)
print(f"{hlm} is limited by: {limits[hlm]}. {u_hlm} is limited by: {limits[u_hlm]}.")

# %% [markdown]
# The price: a draft that the phone keeps is never verified, so the committed token's law moves away from the LLM's.

# %%
distance = results.mean(u_hlm, "distribution_error")
skip_rate = results.mean(u_hlm, "skip_rate")
print(f"It skips {skip_rate.mean:.0%} of the uploads, at a total variation distance of {distance.mean:.3f} a token.")

# %%
if speedup.ci95_low > 1:
    print(f"So skipping pays here, for users who accept a distance of {distance.mean:.3f}.")
else:
    print("So this run doesn't show that skipping pays: the interval of the ratio includes 1.")
