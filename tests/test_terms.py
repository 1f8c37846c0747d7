"""Each point of a sweep is judged by its own window and traffic, not by the first point's."""

from pathlib import Path

import pytest

from uhlm_sim import Results, load, run
from uhlm_sim.analysis.report.points import verdicts_of
from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.report.terminal import summary_text

CROWD = {"traffic.devices": 6, "traffic.rate_per_s": 30.0, "replications": 3}


@pytest.mark.parametrize("kinds", [["closed", "poisson"], ["poisson", "closed"]])
def test_a_point_with_open_arrivals_is_overloaded_wherever_it_stands_in_the_sweep(
    scenario_file: Path, kinds: list[object]
) -> None:
    results = run(load(scenario_file, {**CROWD, "sweep": {"traffic.kind": kinds}}), jobs=1)
    words = {kinds[point]: word for (point, _), (word, _) in verdicts_of(results).items()}
    assert words["poisson"] == "OVERLOADED"
    assert words["closed"] != "OVERLOADED"
    assert [results.at({"traffic.kind": kind}).is_open for kind in kinds] == [kind == "poisson" for kind in kinds]
    assert any(sentence.startswith("Arrivals are open at poisson: ") for sentence in answers(results))


def test_a_point_has_its_own_window(scenario_file: Path, tmp_path: Path) -> None:
    results = run(load(scenario_file, {"sweep": {"duration_s": [3.0, 6.0]}}), jobs=1, out=tmp_path / "run")
    for one in (results, Results.read(tmp_path / "run")):
        starts_s = {terms.warmup_s for terms in one.terms.values()}
        assert [one.at({"duration_s": at}).window_s[1] for at in (3.0, 6.0)] == [3.0, 6.0]
        assert one.middle_point().window_s == (*starts_s, 6.0)
        assert "of 3 to 6 s, the first" in summary_text(one)
