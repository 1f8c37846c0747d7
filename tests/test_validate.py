"""Validation passes an honest model, fails one with a defect by the right rows, and is itself a sound test."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import more_defects  # noqa: F401  its defects are in DEFECTS, too
import numpy as np
import pandas as pd
import pytest
from defects import DEFECTS, Patch, a_rejected_draft_is_replaced_from_y
from scipy import stats

from uhlm_sim.cli import main
from uhlm_sim.errors import InputError, SimulationError
from uhlm_sim.rng import stream
from uhlm_sim.validation import findings
from uhlm_sim.validation.findings import Trial
from uhlm_sim.validation.page import write_page
from uhlm_sim.validation.validate import FAMILY, STATIONS, claims, judge, validate

PAGE = (Path(__file__).parent.parent / "docs" / "validation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_caught_by_the_rows_that_it_concerns(name: str, monkeypatch: Patch) -> None:
    plant, caught_by, missed_by = DEFECTS[name]
    plant(monkeypatch)
    found = validate(quick=True, jobs=1, only=caught_by | missed_by)
    assert set(found.failed) == caught_by
    assert not found.passed
    assert found.text().splitlines()[-3].startswith("FAILED: ")


# -- the honest model ---------------------------------------------------------------------------------------------


def test_the_model_passes_and_leaves_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", "--quick", "--jobs", "1", "--out", str(tmp_path / "page")])
    told = capsys.readouterr()
    assert "PASSED: no claim fails (quick size, seed 1)." in told.out
    assert "validation.html" in told.err
    written = {str(file.relative_to(tmp_path / "page")) for file in (tmp_path / "page").rglob("*.*")}
    names = ("distances", "queues", "closed_cell")
    assert written == {"validation.html", "validation.csv"} | {
        f"figures/{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")
    }
    table = pd.read_csv(tmp_path / "page" / "validation.csv")
    page = (tmp_path / "page" / "validation.html").read_text(encoding="utf-8")
    assert table["name"].tolist() == [claim.name for _, claim in claims()]
    assert all(text in told.out for text in table["claim"])
    assert page.count("<tr class=") == len(table) + len(STATIONS)
    assert page.count("data:image/png") == 3
    assert "http" not in page


def test_a_failing_model_ends_with_exit_1_and_says_so_on_its_page(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    only = partial(validate, only=["residual", "thresholds"])
    monkeypatch.setattr("uhlm_sim.validation.validate.validate", only)
    a_rejected_draft_is_replaced_from_y(monkeypatch)
    with pytest.raises(SystemExit) as exit_:
        main(["validate", "--quick", "--jobs", "1", "--out", str(tmp_path)])
    assert exit_.value.code == 1
    assert "residual: not exact" in capsys.readouterr().out
    assert '<tr class="FAILS" id="residual">' in (tmp_path / "validation.html").read_text(encoding="utf-8")


def test_a_row_hangs_on_its_name_and_the_seed_alone(tmp_path: Path) -> None:
    """Neither on the other rows nor on the number of processes; another seed gives other numbers."""
    names = ["machine repair, 1 GPU", "outage", "one phone, HLM"]
    alone = [validate(quick=True, jobs=1, only=[name]).table["simulated"].item() for name in names]
    together = validate(quick=True, jobs=2, only=names)
    assert dict(zip(names, alone, strict=True)) == together.table.set_index("name")["simulated"].to_dict()
    in_one = validate(quick=True, jobs=1, only=names)
    pages = [write_page(found, tmp_path / name) for name, found in (("a", together), ("b", in_one))]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    other = validate(quick=True, jobs=1, only=names, seed=2).table["simulated"]
    assert (other != together.table["simulated"]).tolist() == [True] * 3


def test_a_claim_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="no claim is called 'outages'; did you mean 'outage'"):
        validate(only=["outages"])


def test_the_page_of_the_validation_tells_each_defect() -> None:
    rows = re.findall(r"^\| (.*) \| .* \|$", PAGE.partition("## Does it notice?")[2], flags=re.MULTILINE)
    assert len(rows) - 1 == len(DEFECTS) == 57
    assert "plants fifty-seven defects" in PAGE


def test_every_claim_has_a_name_of_its_own_a_source_and_words() -> None:
    all_claims = [claim for _, claim in claims()]
    assert len({claim.name for claim in all_claims}) == len(all_claims)
    assert all(claim.source and claim.text and claim.unit for claim in all_claims)


# -- the verdict itself -------------------------------------------------------------------------------------------


def family(p_values: Any) -> pd.DataFrame:
    rows = len(p_values)
    names = ["theory", "simulated", "low", "high", "error", "limit", "at"]
    words = ["station", "name", "claim", "source", "unit", "how", "broken", "curve"]
    numbers = pd.DataFrame(np.zeros((rows, len(names))), columns=names)
    return numbers.assign(p_value=p_values, **dict.fromkeys(words, ""))


def test_an_honest_model_fails_in_one_of_a_hundred_validations_at_most() -> None:
    rng, failed, count = stream(1, "families"), 0, 200
    for _ in range(count):
        p_values = rng.random(40)
        table, allowed = judge(family(p_values))
        failed += (table["verdict"] == "FAILS").any() or np.sum(p_values < 0.05) > allowed
    assert failed / count < FAMILY + 3 * np.sqrt(FAMILY / count)


def test_holm_is_stricter_with_the_worst_than_with_the_next() -> None:
    """Limits 0.005 / 4, / 3, / 2, / 1, while all before are below theirs; 0.004 would fail on its own."""
    table, _ = judge(family([0.0012, 0.9, 0.0016, 0.004]))
    assert table["verdict"].tolist() == ["FAILS", "holds", "FAILS", "outside"]
    assert judge(family([0.0013, 0.9, 0.0016, 0.004]))[0]["verdict"].tolist() == [
        "outside",
        "holds",
        "outside",
        "outside",
    ]


def test_p_values_of_an_honest_model_are_uniform() -> None:
    rng = stream(1, "p-values")
    law = np.array([0.5, 0.3, 0.15, 0.05])
    means = [findings.mean_is(3.0, rng.normal(3.0, 0.1, 8), "").p_value for _ in range(300)]
    counts = [findings.counts_follow(law, rng.multinomial(5000, law), "").p_value for _ in range(300)]
    shares = [findings.share_is(0.4, rng.binomial(20_000, 0.4), 20_000, "").p_value for _ in range(300)]
    assert min(stats.kstest(values, "uniform").pvalue for values in (means, counts, shares)) > 1e-3


def test_a_finding_that_proves_nothing_is_no_proof() -> None:
    assert "too wide" in findings.mean_is(1.0, [0.2, 1.8, 1.0], "").broken
    assert "no number" in findings.mean_is(1.0, [1.0, np.nan, 1.0], "").broken
    assert "impossible" in findings.counts_follow([0.5, 0.5, 0.0], [50, 50, 1], "").broken
    assert findings.equals([1.0, 2.0], [1.0, np.nan], "").error == np.inf
    assert findings.equals([1e6, 1.0], [1e6, 1.0 + 1e-4], "").error == pytest.approx(1e-10)
    with pytest.raises(SimulationError, match="1 numbers simulated where theory has 2"):
        findings.equals([1.0, 2.0], [1.0], "")


def test_rare_outcomes_are_counted_with_their_neighbours() -> None:
    """Expected 500, 480, 9, 9 and 2: the last three together are 20, one degree of freedom less each."""
    finding = findings.counts_follow([0.5, 0.48, 0.009, 0.009, 0.002], [500, 480, 5, 5, 10], "")
    assert (finding.theory, finding.simulated) == (2, 0.0)


def test_a_claims_streams_are_its_own() -> None:
    first, other = Trial("a", 1, 1), Trial("b", 1, 1)
    assert first.rng("x").random() == first.rng("x").random() != other.rng("x").random()
