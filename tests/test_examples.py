"""The examples of docs/ run as they are, and what they conclude holds."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import from their folder, as Python does for a script there; simulate in this process."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    sys.modules.pop("own", None)
    yield
    sys.modules.pop("own", None)


def executed(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_skipping_pays_where_the_uplink_limits_hlm(capsys: pytest.CaptureFixture[str]) -> None:
    names = executed("compare_two_schemes")
    assert names["limits"][names["hlm"]] == "uplink"
    assert names["speedup"].ci95_low > 1
    assert names["distance"].ci95_low > 0
    assert "So skipping pays here" in capsys.readouterr().out


def test_a_policy_of_ones_own_sends_the_start_of_every_answer(capsys: pytest.CaptureFixture[str]) -> None:
    results = executed("own_policy_and_channel")["results"]
    tokens = results.tokens
    first = tokens[tokens["position"] < 32].groupby("policy", observed=True)["decision"]
    kept = first.agg(lambda decisions: (decisions == "skip").mean())
    assert kept["careful"] == kept["hlm"] == 0
    assert kept["all"] > 0.1
    assert "own:blocked: the careful start commits" in capsys.readouterr().out


def test_what_the_plan_says_to_build_keeps_the_objective_in_other_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    names = executed("plan_a_cell")
    for policy, row in names["needs"].iterrows():
        assert row["ci95_low"] <= row["needed"] <= row["ci95_high"], policy
        assert names["kept"][policy].mean >= names["LEAST"], policy
    assert names["short_of"] == []
    assert "needs less band" in capsys.readouterr().out
