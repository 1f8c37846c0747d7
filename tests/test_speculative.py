"""The mathematics of a drafted token against enumeration, theory and transformers' own speculative sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uhlm_sim.tokens import speculative as sp

X = np.array([0.5, 0.3, 0.15, 0.05])
PAIRS = {
    "close": (X, np.array([0.4, 0.4, 0.1, 0.1])),
    "reversed": (X, X[::-1].copy()),
    "flat": (X, np.full(4, 0.25)),
    "certain": (X, np.array([0.0, 0.0, 1.0, 0.0])),
    "never drafted": (np.array([0.6, 0.4, 0.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])),
}
DRAWS = 200_000

distributions = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12).filter(lambda w: sum(w) > 0.01)


def hybrid(x, y, draws=DRAWS, seed=0):
    """Draft from x and accept or resample by y, `draws` times; return committed tokens and who was accepted."""
    rng = np.random.default_rng(seed)
    rows_x, rows_y = np.broadcast_to(x, (draws, len(x))), np.broadcast_to(y, (draws, len(y)))
    draft = sp.inverse_cdf(rows_x, rng.random(draws))
    return sp.accept_or_resample(rows_x, rows_y, draft, rng.random(draws), rng.random(draws))


# -- accept or resample ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_committed_tokens_follow_the_large_model_whatever_the_small_one(name):
    x, y = PAIRS[name]
    committed, _ = hybrid(x, y)
    counts = np.bincount(committed, minlength=len(y))
    assert counts[y == 0].sum() == 0
    possible = y > 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], DRAWS * y[possible]).pvalue > 1e-4


@pytest.mark.parametrize("name", PAIRS)
def test_acceptance_is_one_minus_total_variation(name):
    x, y = PAIRS[name]
    _, accepted = hybrid(x, y)
    expected = np.minimum(x, y).sum()
    assert expected == pytest.approx(1 - np.abs(x - y).sum() / 2)
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    assert accepted.mean() == pytest.approx(expected, abs=4 * error + 1e-12)


def test_equal_distributions_never_reject_and_disjoint_ones_always_do():
    assert hybrid(X, X)[1].all()
    x, y = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.3, 0.7])
    committed, accepted = hybrid(x, y, draws=1000)
    assert not accepted.any()
    assert (committed >= 2).all()


def test_a_resampled_token_is_never_the_draft():
    x, y = PAIRS["reversed"]
    rng = np.random.default_rng(1)
    rows = (np.broadcast_to(x, (5000, 4)), np.broadcast_to(y, (5000, 4)))
    draft = sp.inverse_cdf(rows[0], rng.random(5000))
    committed, accepted = sp.accept_or_resample(*rows, draft, rng.random(5000), rng.random(5000))
    assert ((committed != draft) == ~accepted).all()


@given(distributions, st.data())
def test_residual_is_the_normalised_excess(weights, data):
    x = np.array(weights) / np.sum(weights)
    other = data.draw(st.lists(st.floats(0.0, 1.0), min_size=len(x), max_size=len(x)).filter(lambda w: sum(w) > 0.01))
    y = np.array(other) / np.sum(other)
    excess = np.maximum(y - x, 0)
    if excess.sum() > 1e-9:
        np.testing.assert_allclose(sp.residual(x, y), excess / excess.sum(), atol=1e-9)
    np.testing.assert_array_equal(sp.residual(x, x), x)


def test_probabilities_of_acceptance_and_rejection_add_up():
    x, y = np.array([0.5, 0.2, 0.0, 0.3]), np.array([0.25, 0.4, 0.1, 0.0])
    np.testing.assert_allclose(sp.accept_probability(x, y), [0.5, 1, 1, 0])
    np.testing.assert_allclose(sp.rejection_probability(x, y), [0.5, 0, 0, 1])


@pytest.mark.models
def test_the_rule_is_that_of_transformers_speculative_sampling():
    """Same logits, a thousand rounds of each: one accept rate and one output law."""
    import torch
    from transformers.generation.utils import _speculative_sampling

    rounds, vocabulary = 4000, 6
    rng = np.random.default_rng(3)
    x_logits, y_logits = rng.normal(size=vocabulary), rng.normal(size=vocabulary)
    x, y = sp.softmax(x_logits), sp.softmax(y_logits)
    drafts = sp.inverse_cdf(np.broadcast_to(x, (rounds, vocabulary)), rng.random(rounds))
    torch.manual_seed(4)
    theirs, matches = [], 0
    candidates = torch.tensor(x_logits)[None, None]
    verdicts = torch.tensor(np.stack([y_logits, y_logits]))[None]
    for draft in drafts:
        ids = torch.tensor([[0, draft]])
        valid, matched = _speculative_sampling(ids, candidates, 1, verdicts)
        theirs.append(int(valid[0, 0]))
        matches += int(matched)
    ours, accepted = sp.accept_or_resample(
        np.broadcast_to(x, (rounds, vocabulary)),
        np.broadcast_to(y, (rounds, vocabulary)),
        drafts,
        rng.random(rounds),
        rng.random(rounds),
    )
    chance = np.minimum(x, y).sum()
    error = np.sqrt(chance * (1 - chance) / rounds)
    assert matches / rounds == pytest.approx(chance, abs=4 * error)
    assert accepted.mean() == pytest.approx(chance, abs=4 * error)
    table = np.array([np.bincount(theirs, minlength=vocabulary), np.bincount(ours, minlength=vocabulary)])
    assert stats.chi2_contingency(table).pvalue > 1e-4


# -- drawing and softmax --------------------------------------------------------------------------------------------


def test_softmax_at_its_limits():
    logits = np.array([[1.0, 3.0, 3.0], [2.0, -1.0, 0.0]])
    np.testing.assert_array_equal(sp.softmax(logits, 0.0), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(sp.softmax(logits, 1e6), np.full((2, 3), 1 / 3), atol=1e-5)
    np.testing.assert_allclose(sp.softmax(logits + 1e4), sp.softmax(logits))
    with pytest.raises(ValueError, match="negative"):
        sp.softmax(logits, -1.0)


def test_inverse_cdf_draws_each_index_in_its_own_interval_and_never_an_impossible_one():
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    uniforms = np.array([0.0, 0.2499, 0.25, np.nextafter(1.0, 0.0)])
    drawn = sp.inverse_cdf(np.broadcast_to(weights, (4, 5)), uniforms)
    np.testing.assert_array_equal(drawn, [1, 1, 3, 3])


@given(distributions, st.floats(0.0, 1.0, exclude_max=True))
def test_inverse_cdf_inverts_the_cumulative_sum(weights, uniform):
    w = np.array(weights)
    i = int(sp.inverse_cdf(w[None], np.array([uniform]))[0])
    total = w.cumsum()
    assert total[i] > uniform * total[-1] >= (total[i] - w[i]) - 1e-12
    assert w[i] > 0


def test_tail_masses_and_entropy_by_sorting():
    rng = np.random.default_rng(0)
    x = sp.softmax(3 * rng.normal(size=(5, 40)))
    ordered = np.sort(x, axis=1)[:, ::-1]
    expected = np.stack([ordered[:, k:].sum(axis=1) for k in (1, 3, 40, 100)], axis=1)
    np.testing.assert_allclose(sp.tail_masses(x, (1, 3, 40, 100)), expected, atol=1e-15)
    np.testing.assert_allclose(sp.entropy(x), stats.entropy(x, axis=1))
    assert sp.entropy(np.array([0.0, 1.0])) == 0


# -- uncertainty ----------------------------------------------------------------------------------------------------


def test_theta_one_samples_from_x_and_theta_to_zero_takes_the_argmax():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 9))
    draft = rng.integers(0, 9, 6)
    x_draft = sp.softmax(logits)[np.arange(6), draft]
    np.testing.assert_allclose(sp.differ_probability(logits, draft, np.ones((6, 1)))[:, 0], 1 - x_draft)
    is_top = draft == logits.argmax(axis=1)
    for theta in (0.0, 1e-9, 1e-3):
        np.testing.assert_allclose(
            sp.differ_probability(logits, draft, np.full((6, 1), theta))[:, 0], 1 - is_top.astype(float), atol=1e-9
        )


def test_logits_of_real_models_overflow_nothing():
    """float32, spread over hundreds, at the smallest temperatures that can be drawn."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 100, (4, 1000)).astype(np.float32)
    thetas = np.array([[0.0, 1e-300, 1e-12, 1e-6, 1e-3, 2.0]] * 4)
    with np.errstate(all="raise", under="ignore"):
        differs = sp.differ_probability(logits, logits.argmax(axis=1), thetas)
    assert ((differs >= 0) & (differs <= 1)).all()


@pytest.mark.parametrize("law", ["uniform", "grid"])
def test_mean_uncertainty_by_enumeration(law):
    """The mean of K u / K over many draws is the theta average of 1 - softmax(logits / theta)_d."""
    samples, draws = 20, 20_000
    logits = np.array([2.0, 1.0, 0.5, -1.0])
    rng = np.random.default_rng(5)
    for draft in range(4):
        thetas = sp.draw_thetas(law, rng.random((draws, samples)))
        rows = np.broadcast_to(logits, (draws, 4))
        levels = sp.uncertainty_level(rows, np.full(draws, draft), thetas, rng.random((draws, samples)))
        fine = np.linspace(0, 2, samples) if law == "grid" else (np.arange(20_000) + 0.5) / 10_000
        expected = np.mean(
            [1 - (np.exp(logits / t)[draft] / np.exp(logits / t).sum() if t > 0.01 else draft == 0) for t in fine]
        )
        error = levels.std() / samples / np.sqrt(draws)
        assert levels.mean() / samples == pytest.approx(expected, abs=4 * error + 1e-12)


def test_level_has_the_law_of_sampled_tokens():
    """Bernoulli draws against the definition: K tokens sampled at K temperatures, those that differ counted."""
    samples, draws = 5, 40_000
    logits, draft = np.array([1.5, 1.0, 0.0]), 1
    rng = np.random.default_rng(6)
    rows = np.broadcast_to(logits, (draws, 3))
    thetas = sp.draw_thetas("uniform", rng.random((draws, samples)))
    ours = sp.uncertainty_level(rows, np.full(draws, draft), thetas, rng.random((draws, samples)))
    thetas = sp.draw_thetas("uniform", rng.random((draws, samples)))
    laws = sp.softmax(logits / np.maximum(thetas, 1e-6)[..., None])
    defined = (sp.inverse_cdf(laws, rng.random((draws, samples))) != draft).sum(axis=1)
    table = np.array([np.bincount(ours, minlength=samples + 1), np.bincount(defined, minlength=samples + 1)])
    assert stats.chi2_contingency(table).pvalue > 1e-4


# -- law, thresholds, risk ------------------------------------------------------------------------------------------


def test_fit_recovers_a_line_and_counts_delta():
    u = np.repeat(np.arange(11) / 10, 3)
    beta = 0.6 * u + 0.05
    x = np.full(len(u), 0.5)
    law = sp.fit_law(u, x, x * (1 - beta))
    assert (law.a, law.b, law.delta) == pytest.approx((0.6, 0.05, 1.0))


def test_two_tokens_of_different_uncertainty_are_enough_for_a_line():
    law = sp.fit_law([0.2, 0.6], [0.5, 0.5], [0.45, 0.25])  # beta = 0.1 and 0.5
    assert (law.a, law.b) == pytest.approx((1.0, -0.1))
    with pytest.raises(ValueError, match="at least two"):
        sp.fit_law([0.2], [0.5], [0.45])


def test_fit_is_least_squares_with_every_token_weighing_one():
    rng = np.random.default_rng(2)
    u, x, y = rng.integers(0, 21, 500) / 20, rng.random(500), rng.random(500)
    law = sp.fit_law(u, x, y)
    slope, intercept = np.polyfit(u, np.maximum(0, 1 - y / x), 1)
    assert (law.a, law.b, law.delta) == pytest.approx((slope, intercept, np.mean(y < x)))
    with pytest.raises(ValueError, match="different uncertainties"):
        sp.fit_law(np.full(5, 0.2), x[:5], y[:5])


def test_thresholds_of_the_paper():
    law = sp.LinearLaw(a=0.82, b=-0.06, delta=0.29)
    assert law.risk_averse == pytest.approx(0.0732, abs=1e-4)
    assert law.risk_prone == pytest.approx(0.427, abs=1e-3)
    assert law.rejection(law.risk_averse) == pytest.approx(0)
    assert law.rejection(law.risk_prone) == pytest.approx(0.29)
    assert (sp.grid_level(law.risk_averse, 20), sp.grid_level(0.43, 20)) == (1, 8)


def test_thresholds_are_not_clipped():
    assert sp.LinearLaw(a=0.5, b=0.1, delta=0.9).risk_averse == pytest.approx(-0.2)
    assert sp.LinearLaw(a=0.5, b=0.1, delta=0.9).risk_prone == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("threshold", "level"),
    [(-0.2, -1), (-1e-6, -1), (0.0, 0), (0.049, 0), (0.05, 1), (0.35, 7), (0.43, 8), (0.999, 19), (1.0, 20), (7.0, 20)],
)
def test_grid_level(threshold, level):
    assert sp.grid_level(threshold, 20) == level


@given(st.integers(1, 200), st.integers(0, 200))
def test_a_threshold_on_the_grid_skips_its_own_level(samples, level):
    level = min(level, samples)
    assert sp.grid_level(level / samples, samples) == level


def test_predicted_risk_by_hand_and_under_its_bound():
    law = sp.LinearLaw(a=0.5, b=-0.05, delta=0.3)
    u = np.array([0.0, 0.1, 0.2, 0.4, 0.4, 0.9])
    forecast = sp.predicted_risk(law, u, 0.43, samples=20)
    assert forecast.skipped == pytest.approx(5 / 6)
    assert forecast.risk == pytest.approx((0 + 0 + 0.05 + 0.15 + 0.15) / 6)
    assert forecast.bound == pytest.approx(0.15 * 5 / 6)
    averse = sp.predicted_risk(law, u, law.risk_averse, samples=20)
    assert (averse.risk, averse.bound) == pytest.approx((0, 0))
    assert sp.predicted_risk(law, u, -0.01, samples=20) == sp.PredictedRisk(0.0, 0.0, 0.0)
    assert sp.predicted_risk(law, u, 1.0, samples=20).skipped == 1


@given(st.floats(0, 1), st.floats(-0.5, 0.5), st.floats(-0.1, 1.1))
def test_risk_never_exceeds_its_bound(a, b, threshold):
    u = np.arange(21) / 20
    forecast = sp.predicted_risk(sp.LinearLaw(a, b, 0.5), u, threshold, samples=20)
    assert forecast.risk <= forecast.bound + 1e-12
