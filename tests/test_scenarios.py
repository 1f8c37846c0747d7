"""The built-in scenarios: each asks a question in its first line, reads, runs and gets answers."""

from pathlib import Path

import pytest

from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.experiment import run
from uhlm_sim.scenario_file import read_scenario, sweep_points
from uhlm_sim.simulations import find_tokens

FOLDER = Path(__file__).parent.parent / "scenarios"
SCENARIOS = sorted(FOLDER.glob("*.toml"))
SHORT = ["replications=1", "duration_s=2.5", "warmup_s=0.5", "output.tokens=false"]
REPLAYED = [file for file in SCENARIOS if not file.stem.endswith("_pair")]  # those run the models first


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_scenario_asks_a_question_and_reads(file: Path) -> None:
    first_line = file.read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("# ")
    assert first_line.endswith("?")
    scenario = read_scenario(file)
    assert scenario.name == file.stem
    assert scenario.description.endswith("?")
    assert sweep_points(scenario)


@pytest.mark.parametrize("file", REPLAYED, ids=lambda file: file.stem)
def test_a_shortened_run_of_it_answers(file: Path) -> None:
    scenario = read_scenario(file, SHORT)
    ends = {
        key: [values[0], values[-1]] if isinstance(values, list) else values for key, values in scenario.sweep.items()
    }
    scenario = scenario.model_copy(update={"sweep": ends})
    tables = run(scenario, jobs=1)
    assert len(tables.summary[tables.sweep].drop_duplicates()) == len(sweep_points(scenario)) if tables.sweep else True
    said = answers(tables)
    for policy in tables.policies[1:]:
        assert any(sentence.startswith(f"{policy}: ") for sentence in said)


@pytest.mark.parametrize("file", REPLAYED, ids=lambda file: file.stem)
def test_it_takes_either_trace(file: Path) -> None:
    """One line chooses the pair. A law that was fitted to the paper gives way to the tokens as a whole."""
    is_synthetic = read_scenario(file).tokens.kind == "synthetic"
    for name in ("qwen-coder-pair", "smollm2-pair"):
        choice = f'tokens={{path="{name}"}}' if is_synthetic else f"tokens.path={name}"
        points = sweep_points(read_scenario(file, [choice]))
        for point in (points[0], points[-1]):
            tokens = find_tokens(point.scenario.tokens)
            tokens.check_max_tokens(point.scenario.traffic.max_tokens)
            functions = find_names(point.scenario)
            policies = [ready_policy(i, point.scenario, tokens, functions) for i in range(len(point.scenario.policy))]
            check_scenario(point.scenario, policies, functions)


def test_power_that_is_limited_loses_3_db_for_every_doubling_of_the_band() -> None:
    """What bandwidth_allocation takes for granted: the band times the SNR over it is one power."""
    points = [point.values for point in sweep_points(read_scenario(FOLDER / "bandwidth_allocation.toml"))]
    limited = [point for point in points if point["uplink.snr_rule"] == "power-limited"]
    powers = [point["uplink.bandwidth_hz"] * 10 ** (point["channel.mean_snr_db"] / 10) for point in limited]
    assert powers == pytest.approx([10e6 * 10] * len(limited), rel=0.02)
    assert all(point["channel.mean_snr_db"] == 10 for point in points if point not in limited)


def test_phones_of_edge_of_cell_are_spread_evenly_over_its_area() -> None:
    """A distance of sqrt((k - 1/2)/n) radii, 37.6 dB for a factor of ten, 0 dB at the edge."""
    scenario = read_scenario(FOLDER / "edge_of_cell.toml")
    snr_db = scenario.channel.mean_snr_db
    assert isinstance(snr_db, list)
    radii = [10 ** (-each / 37.6) for each in snr_db]
    count = len(radii)
    assert [radius**2 for radius in radii] == pytest.approx([(k + 0.5) / count for k in range(count)], rel=0.01)


def test_the_testbeds_token_time_is_drafting_plus_the_share_sent_of_the_rest() -> None:
    """HLM takes the sum of its parts; keeping a share of the tokens saves that share of upload and verification."""
    measured_s = {4.923077e6: 0.213, 2.327273e6: 0.232}  # U-HLM in strong and in weak Wi-Fi, off a bar chart
    scenario = read_scenario(FOLDER / "wifi_testbed.toml", ["replications=3"])
    results = run(scenario, jobs=1)
    means = results.summary.set_index(["uplink.bandwidth_hz", "policy", "metric"])["mean"]
    for point in sweep_points(scenario):
        bandwidth_hz, draft_s, verify_s = point.values.values()
        rest_s = 256e3 / bandwidth_hz + verify_s
        predicted_s = {}
        for policy in results.policies:
            sent = means[bandwidth_hz, policy, "transmission_rate"]
            delay_s = means[bandwidth_hz, policy, "token_delay_s.mean"]
            assert delay_s == pytest.approx(draft_s + sent * rest_s, rel=2e-3)  # means of ratios over replications
            share = {"41 % sent": 0.41, "52 % sent": 0.52}.get(policy, sent)
            assert abs(sent - share) < 4 * 0.5 / means[bandwidth_hz, policy, "completed_tokens"] ** 0.5
            predicted_s[policy] = delay_s + (share - sent) * rest_s  # without the run's luck
        # Bars are read to 2 ms: HLM's three parts, all the same way, and the total that was measured.
        misread_s = 0.002 * (1 + 2 * 0.41) + 0.002
        assert predicted_s["41 % sent"] - misread_s < measured_s[bandwidth_hz] < predicted_s["52 % sent"]
