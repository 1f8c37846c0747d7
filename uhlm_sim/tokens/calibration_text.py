"""What `uhlm-sim calibrate` prints of a trace: its law beside the paper's, thresholds, risks, gates and answers."""

import pandas as pd

from uhlm_sim.tokens.calibration import Calibration
from uhlm_sim.tokens.quality import answer_quality
from uhlm_sim.tokens.trace import Trace

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def calibration_text(name: str, trace: Trace, law: Calibration, gates: pd.DataFrame) -> str:
    """Return the page on a trace of that name; ``gates`` is the table of `gate_risks`."""

    def interval(key: str) -> str:
        low, high = law.intervals[key]
        return f"[{low:.3f}, {high:.3f}]"

    models = trace.header.models
    lines = [
        f"{name}: LLM {models['llm']['name']}, SLM {models['slm']['name']}",
        f"fitted on {law.tokens:,} tokens of {law.prompts} calibration prompts, judged on {trace.prompts} others",
        "",
        "                     this pair                      the paper",
        f"a                    {law.a:>7.3f} {interval('a'):<20}   0.82",
        f"b                    {law.b:>7.3f} {interval('b'):<20}  -0.06",
        f"Delta = P(y_d < x_d) {law.delta:>7.3f} {interval('delta'):<20}   about 0.29, inferred from its thresholds",
    ]
    for rule, key, paper in (("risk-averse", "risk_averse", "0.073"), ("risk-prone", "risk_prone", "0.43")):
        value = law.threshold(rule)
        lines.append(f"{rule:<20} {value:>7.3f} {interval(key):<20}   {paper:<6} here it {law.words(value)}")
    is_flat = not law.intervals["a"][0] > 0.0
    bins = law.bins.assign(ci95_low=law.bins["ci95_low"].clip(lower=0.0)).drop(columns="level")
    risk = law.risk[law.risk["level"] >= 0].drop(columns=["level", "own_path", "rejection_risk"])
    lows = [str(name) for name in risk if str(name).endswith("low")]
    risk[lows] = risk[lows].clip(lower=0.0)  # a mean of probabilities
    answers = answer_quality(trace)
    columns = ["path", "cosine", "cosine_to_hlm", "cosine_to_hlm.low", "cosine_to_hlm.high", "reference"]
    programs = ["task", "task.low", "task.high"] if answers["task"].notna().any() else []
    what = "; programs that pass their checks" if programs else ""
    lines += [
        *(["the interval of the slope a holds 0: on this pair u doesn't tell the risk"] if is_flat else []),
        "",
        f"mean rejection probability {law.mean_rejection:.3f}, correlation with u {law.correlation:.3f}",
        "",
        "The law, bin by bin (mean rejection probability, 95 % over prompts)",
        _table(bins),
        "",
        "Risk E[beta; skipped] per token: predicted from the calibration prompts, realised on the others",
        _table(risk),
        "own_: along the rule's own recorded path; the others along the prefixes of hlm",
        "",
        "What a gate risks: mean rejection probability of a kept draft, by the share of drafts that it keeps",
        _of_gates(gates),
        "",
        "Answers, path by path (95 % over prompts): cosine to the LLM's, over HLM's; to the reference"
        f"{what}; error a token",
        _table(answers[[*columns, *programs, "distribution_error"]]),
    ]
    return "\n".join(lines)


def _table(table: pd.DataFrame) -> str:
    return str(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def _of_gates(risks: pd.DataFrame) -> str:
    """Return a row a gate, a column a share of kept drafts; the nearest that a gate has is told where it is another."""
    rows = {}
    for gate, curve in risks.groupby("gate", sort=False):
        nearest = [curve.iloc[int((curve["share_kept"] - share).abs().argmin())] for share in SHARES]
        rows[str(gate)] = [
            f"{row.rejection_risk:.3f} ({max(row.low, 0.0):.3f}-{row.high:.3f})"
            + (f" at {row.share_kept:.0%}" if round(100 * row.share_kept) != round(100 * share) else "")
            for row, share in zip(nearest, SHARES, strict=True)
        ]
    columns = [f"{share:.0%}" for share in SHARES]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()
