"""Synthetic tokens have the law they state, whatever the seed, the policy, the workers and the other phones."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from worlds import cell

from uhlm_sim.analysis.report.terminal import summary_text
from uhlm_sim.analysis.results import Results
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.cli import main
from uhlm_sim.errors import ScenarioError
from uhlm_sim.experiment import run
from uhlm_sim.scenario import SyntheticTokens
from uhlm_sim.search.capacities import capacity
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.synthetic import Synthetic

A, B, K = 0.82, -0.06, 20
TWO = [{"threshold": 0.43, "rate": 0.4593}, {"threshold": 0.8117, "rate": 0.748}]
TOKENS: dict[str, Any] = {"kind": "synthetic", "a": A, "b": B, "skip_rates": TWO}
HLM = DecodingRule("hlm")


def made(**changes: Any) -> Synthetic:
    return Synthetic(SyntheticTokens.model_validate({**TOKENS, **changes}))


def drawn(tokens: Synthetic, answers: int, rule: DecodingRule = HLM) -> pd.DataFrame:
    """Return the tokens of so many answers: answer, position, level (K u), beta and whether they are skipped."""
    trees = [tokens.answer(prompt) for prompt in range(answers)]
    return pd.concat(
        pd.DataFrame(
            {
                "answer": tree.prompt,
                "position": tree.nodes.position,
                "level": np.rint(tree.nodes.uncertainty * K).astype(int),
                "beta": 1 - tree.nodes.accept_probability,
                "skipped": rule.skips(
                    tree.nodes.position,
                    np.rint(tree.nodes.uncertainty * K),
                    tree.nodes.skip_coin,
                    tree.nodes.phase[0],
                    K,
                ),
            }
        )
        for tree in trees
    )


def stated(tokens: Synthetic, samples: int = K) -> np.ndarray:
    """Return P(K u = l) from scipy's own Beta-binomial law, with the parameters that are told in the provenance."""
    told = tokens.provenance()["synthetic"]
    mean, total = told["uncertainty_mean"], told["uncertainty_alpha_plus_beta"]
    return np.asarray(stats.betabinom.pmf(np.arange(samples + 1), samples, total * mean, total * (1 - mean)))


# -- the law ---------------------------------------------------------------------------------------------------


def test_the_law_of_u_meets_the_rates_it_is_fitted_to() -> None:
    law = stated(made())
    assert law[:9].sum() == pytest.approx(0.4593, abs=1e-9)  # u <= 0.43 is K u <= 8
    assert law[:17].sum() == pytest.approx(0.748, abs=1e-9)


def test_one_rate_leaves_the_flattest_law() -> None:
    half = made(skip_rates=[{"threshold": 0.5, "rate": 11 / 21}])
    assert stated(half) == pytest.approx(np.full(21, 1 / 21), abs=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_u_has_the_stated_law_at_every_position_whatever_the_correlation(correlation: float) -> None:
    tokens, answers = made(correlation=correlation, answer_tokens=6), 1500
    table = drawn(tokens, answers)
    for position in (0, 1, 5):
        counts = np.bincount(table.loc[table["position"] == position, "level"], minlength=K + 1)
        assert stats.chisquare(counts, answers * stated(tokens)).pvalue > 1e-3


def test_the_mean_of_beta_at_each_u_is_the_line() -> None:
    table = drawn(made(), 600)
    for level, beta in table.groupby("level")["beta"]:
        line = min(max(A * level / K + B, 0.0), 1.0)
        assert abs(beta.mean() - line) <= 4.5 * beta.std() / math.sqrt(len(beta))  # the worst of 21
    assert table["beta"].between(0, 1).all()


@pytest.mark.parametrize("delta", [0.4, 0.6, 0.8])
def test_the_share_of_drafts_that_the_llm_finds_less_likely_is_delta(delta: float) -> None:
    beta = drawn(made(delta=delta), 300)["beta"]
    assert abs((beta > 0).mean() - delta) < 4 * math.sqrt(delta * (1 - delta) / len(beta))


@pytest.mark.parametrize("threshold", [0.073, 0.43, 0.8117])
def test_skip_rate_and_risk_are_the_integral_over_the_law(threshold: float) -> None:
    tokens = made()
    levels = np.arange(K + 1)
    skips = levels <= math.floor(K * threshold)
    risk = float((np.clip(A * levels / K + B, 0, 1) * stated(tokens))[skips].sum())
    rule = DecodingRule("u-hlm", threshold=threshold)
    table = drawn(tokens, 600, rule)
    lost = np.where(table["skipped"], table["beta"], 0.0)
    assert abs(table["skipped"].mean() - stated(tokens)[skips].sum()) < 4 * 0.5 / math.sqrt(len(table))
    assert abs(lost.mean() - risk) <= 4 * lost.std() / math.sqrt(len(table))
    assert tokens.skip_rate(rule) == pytest.approx(stated(tokens)[skips].sum())
    assert tokens.fitted.risk(threshold) == pytest.approx(risk)


def test_successive_u_are_correlated_as_a_gaussian_copula_has_it() -> None:
    """Of uniform marginals, Pearson's correlation is 6/pi arcsin(r/2)."""
    r, fine = 0.8, 250
    flat = [{"threshold": 0.5, "rate": 126 / 251}]
    tokens = made(skip_rates=flat, uncertainty_samples=fine, correlation=r, answer_tokens=400)
    u = np.stack([tokens.answer(prompt).nodes.uncertainty for prompt in range(200)])
    each = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in u]
    theory = 6 / math.pi * math.asin(r / 2)
    assert abs(np.mean(each) - theory) < 0.01  # that of 400 values is biased by a few thousandths


def test_a_geometric_answer_has_its_mean() -> None:
    tokens = made(length_law="geometric", answer_tokens=20)
    lengths = np.array([len(tokens.answer(prompt).nodes) for prompt in range(2000)])
    assert lengths.min() == 1
    assert abs(lengths.mean() - 20) < 4 * math.sqrt(20 * 19 / 2000)


# -- one world -------------------------------------------------------------------------------------------------


def test_all_policies_meet_the_same_tokens() -> None:
    """Whatever a scheme commits, the next node is the same."""
    nodes = made(correlation=0.5).source(HLM).tree(7, 0).nodes
    assert np.array_equal(nodes.after_draft, nodes.after_verdict)
    assert np.array_equal(nodes.after_draft, nodes.after_llm)


def test_a_longer_answer_begins_as_a_shorter_one() -> None:
    short, long = (made(correlation=0.7, answer_tokens=count).answer(3).nodes for count in (40, 90))
    assert np.array_equal(long.uncertainty[:40], short.uncertainty)
    assert np.array_equal(long.y_draft[:40], short.y_draft)


def scenario(**changes: Any) -> Any:
    values = {
        "tokens": TOKENS,
        "traffic": {"devices": 3, "think_time_s": 1.0},
        "policy": [
            {"kind": "hlm"},
            {"kind": "u-hlm", "threshold": 0.43},
            {"kind": "rand-hlm", "skip_rate": "matched"},
            {"kind": "llm"},
        ],
        "replications": 2,
        "duration_s": 12.0,
        "warmup_s": 2.0,
    }
    return cell(**{**values, **changes})


def test_another_phone_changes_no_tokens_of_the_others() -> None:
    tables = []
    for devices in (2, 3):
        world = scenario(traffic={"devices": devices, "think_time_s": 1.0}, policy=[{"kind": "slm"}])
        tables.append(simulate(world, ready_policy(0, world, Synthetic(world.tokens), find_names(world)), 0).tokens)
    two, three = tables
    pd.testing.assert_frame_equal(two, three[three["device"] < 2].reset_index(drop=True))


def test_a_matched_rand_hlm_skips_at_the_rate_of_the_law() -> None:
    world = scenario()
    ready = [ready_policy(index, world, Synthetic(world.tokens), find_names(world)) for index in range(3)]
    assert ready[2].skip_rate == pytest.approx(0.4593, abs=1e-9)
    assert all(policy.exact for policy in ready)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("synthetic") / "run"
    run(scenario(), out=folder, jobs=1)
    return folder


# -- told everywhere -------------------------------------------------------------------------------------------


def test_every_table_of_a_run_is_marked(folder: Path) -> None:
    files = [*folder.glob("*.csv"), *folder.glob("figures/*.csv")]
    assert len(files) > 6
    tables = [pd.read_csv(file) for file in files]
    tables += [pd.read_parquet(folder / f"{name}.parquet") for name in ("requests", "tokens")]
    assert all((table["source"] == "synthetic").all() for table in tables)


def test_report_text_and_figures_say_it(folder: Path) -> None:
    results = Results.read(folder)
    assert results.sweep == []
    assert results.source == "synthetic"
    assert "SYNTHETIC TOKENS" in summary_text(results)
    assert "policy (synthetic)" in summary_text(results)
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert '<span class="alarm">SYNTHETIC TOKENS.</span>' in report
    assert report.count("policy (synthetic)</th>") == 5, "each table of policies is marked"
    assert "synthetic: the same answers as every other policy" in report
    assert "P(u &lt;= 0.43) = 0.4593, wanted 0.4593" in report
    assert "SYNTHETIC" in results._repr_html_()
    for figure in (results.plot.throughput(), results.plot.legs(), results.plot.token_time()):
        assert figure.get_suptitle() == "synthetic tokens"  # type: ignore[union-attr]


def test_a_run_of_recorded_tokens_is_not_marked(trace_file: Path, tmp_path: Path) -> None:
    world = scenario(
        tokens={"path": str(trace_file)},
        traffic={"devices": 2, "max_tokens": 12},
        replications=1,
        output={"tokens": False},
    )
    results = run(world, out=tmp_path / "run", jobs=1)
    assert results.source == ""
    assert "source" not in pd.read_csv(tmp_path / "run" / "summary.csv").columns
    assert "synthetic" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_provenance_says_what_the_law_is_fitted_to_and_how_well(folder: Path) -> None:
    told = Results.read(folder).provenance["synthetic"]
    assert [row["statistic"] for row in told["fit"]] == ["P(u <= 0.43)", "P(u <= 0.8117)"]
    assert all(abs(row["wanted"] - row["got"]) < 1e-8 for row in told["fit"])


def test_quality_is_left_empty_and_the_kept_rate_is_the_laws(folder: Path) -> None:
    results = Results.read(folder)
    table = results.replications.set_index(["policy", "metric"])["value"]
    assert table.xs("quality_cosine", level="metric").isna().all()
    # Every drafted token is sent under hlm, and refused with probability E[beta].
    kept = results.summary.set_index(["policy", "metric"])["mean"]["hlm", "kept_rate"]
    count = table["hlm", "completed_tokens"].sum()
    assert abs(kept - (1 - made().fitted.risk(1.0))) < 4 * math.sqrt(0.35 * 0.65 / count)


def test_a_search_for_capacity_says_it(tmp_path: Path) -> None:
    world = scenario(policy=[{"kind": "hlm"}], replications=2, duration_s=6.0, warmup_s=1.0)
    found = capacity(world, "traffic.devices", ["tpot_s.p95<=0.085"], high=12, out=tmp_path / "found", jobs=1)
    assert "SYNTHETIC TOKENS" in found.text()
    assert found.figure().get_suptitle() == "synthetic tokens"
    files = [*(tmp_path / "found").glob("**/*.csv")]
    assert len(files) == 3
    assert all((pd.read_csv(file)["source"] == "synthetic").all() for file in files)


def test_calibrate_says_what_a_synthetic_source_is(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["uhlm-sim", "calibrate", "paper_one_phone"])
    main()
    told = capsys.readouterr().out
    assert "nothing to calibrate" in told
    assert "P(u <= 0.43)             0.4593  0.4593    0.0000" in told


# -- what no law has -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"delta": 0.29}, r"tokens.delta = 0.29: must lie in \[0.3500, 0.8264\]"),
        ({"b": -0.9}, r"tokens.a, tokens.b = 0.82, -0.9"),
        ({"skip_rates": [{"threshold": 0.43, "rate": 0.05}, {"threshold": 0.46, "rate": 0.99}]}, "0.050 to 0.115"),
        ({"skip_rates": [{"threshold": 0.43, "rate": 0.5}, {"threshold": 0.81, "rate": 0.5001}]}, "doesn't go with"),
        ({"skip_rates": TWO[::-1]}, "skip_rates must rise"),
        ({"skip_rates": [TWO[0], {"threshold": 0.44, "rate": 0.5}]}, "skip_rates must rise"),
        ({"skip_rates": [{"threshold": 0.43, "rate": 1.5}]}, r"tokens.skip_rates.0.rate = 1.5"),
        ({"skip_rates": []}, r"tokens.skip_rates"),
        ({"a": -0.5}, r"tokens.a = -0.5: must be greater than 0"),
        ({"correlation": 1.0}, r"tokens.correlation = 1.0: must be less than 1"),
        ({"slope": 1.0}, r"unknown key 'tokens.slope': allowed here are kind, a, b, skip_rates"),
        ({"skip_rates": [{"threshold": 0.43, "rte": 0.5}]}, "did you mean 'rate'"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_event(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=told):
        run(scenario(tokens={**TOKENS, **changes}), out=tmp_path / "run", jobs=1)
    assert not (tmp_path / "run").exists()


def test_statistics_at_the_edge_give_a_law_or_are_refused() -> None:
    """No traceback between: rates near 0 and 1, coarse and fine grids, steep lines."""
    rng = np.random.default_rng(1)
    made_ones = 0
    for _ in range(120):
        low, high = np.sort(rng.choice([1e-6, 1e-3, 0.2, 0.5, 0.8, 0.999, 1 - 1e-6], 2, replace=False))
        at, further = np.sort(rng.choice(np.linspace(0, 0.99, 12), 2, replace=False))
        rates = [{"threshold": at, "rate": low}, {"threshold": further, "rate": high}][: rng.integers(1, 3)]
        changes = {
            "skip_rates": rates,
            "uncertainty_samples": int(rng.choice([12, 20, 250])),
            "a": float(rng.choice([0.01, 0.8, 5.0, 100.0])),
            "b": float(rng.choice([-3.0, -0.06, 0.0, 0.5])),
            "delta": None if rng.random() < 0.5 else float(rng.random() * 0.98 + 0.01),
        }
        try:
            tokens = made(**changes)
        except ScenarioError:
            continue
        made_ones += 1
        assert tokens.fitted.probability.sum() == pytest.approx(1.0)
        assert all(abs(wanted - got) < 1e-7 for _, wanted, got in tokens.fitted.fit())
        nodes = tokens.answer(0).nodes
        assert np.isfinite(nodes.y_draft).all()
    assert made_ones > 20


def test_what_rand_hlm_sends_is_accepted_as_often_as_any_draft() -> None:
    """Its coin is another than the LLM's: else those it sends would be the ones with the larger coins."""
    answers = [made().answer(prompt).nodes for prompt in range(40)]
    gained = np.concatenate([(nodes.accepted - nodes.accept_probability)[nodes.skip_coin >= 0.5] for nodes in answers])
    assert abs(gained.mean()) < 4 * gained.std() / np.sqrt(len(gained))
