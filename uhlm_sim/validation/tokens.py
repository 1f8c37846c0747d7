"""Claims about one drafted token: what is committed, how often a draft is kept, how uncertain it is."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from uhlm_sim.settings.tokens import SkipRate, SyntheticTokens
from uhlm_sim.tokens import speculative
from uhlm_sim.tokens.decoding_rule import HLM
from uhlm_sim.tokens.gates import keep_some, keep_sure
from uhlm_sim.tokens.synthetic import Synthetic
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.validation.findings import Claim, Finding, Trial, counts_follow, equals, mean_is, share_is

Floats = NDArray[np.float64]

SMALL = np.array([0.5, 0.3, 0.15, 0.05])
PAIRS = {
    "alike": (SMALL, np.array([0.4, 0.4, 0.1, 0.1])),
    "opposed": (SMALL, SMALL[::-1].copy()),
    "blind": (np.array([0.6, 0.4, 0.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])),
}
LOGITS, SAMPLES = np.array([2.0, 1.0, 0.5, -1.0]), 20
SYNTHETIC = SyntheticTokens(kind="synthetic", a=0.82, b=-0.06, skip_rates=[SkipRate(threshold=9 / SAMPLES, rate=0.6)])


def hybrid(trial: Trial, x: Floats, y: Floats, draws: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draft from x and let y decide, `draws` times; return the committed tokens, and which drafts were kept."""
    rng = trial.rng()
    rows_x, rows_y = np.broadcast_to(x, (draws, len(x))), np.broadcast_to(y, (draws, len(y)))
    draft = rng.choice(len(x), size=draws, p=x)
    return speculative.accept_or_resample(rows_x, rows_y, draft, rng.random(draws), rng.random(draws))


def output_law(trial: Trial, pair: str) -> Finding:
    x, y = PAIRS[pair]
    draws = 60_000 * trial.size
    committed, _ = hybrid(trial, x, y, draws)
    return counts_follow(y, np.bincount(committed, minlength=len(y)), f"{draws:,} tokens over 4 words, chi-square")


def acceptance(trial: Trial, pair: str) -> Finding:
    x, y = PAIRS[pair]
    draws = 60_000 * trial.size
    _, kept = hybrid(trial, x, y, draws)
    return share_is(float(np.minimum(x, y).sum()), int(kept.sum()), draws, f"{draws:,} drafts")


def equal_and_disjoint(trial: Trial) -> Finding:
    same = hybrid(trial, SMALL, SMALL, 5000)[1].mean()
    disjoint = hybrid(trial, np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.3, 0.7]), 5000)[1].mean()
    return equals([1.0, 0.0], [same, disjoint], "5,000 drafts of either")


def random_pairs(trial: Trial) -> tuple[Floats, Floats]:
    x, y = trial.rng().dirichlet(np.full(50, 0.3), size=(2, 200))
    return x, y


def committed_law(trial: Trial) -> Finding:
    """law = x a + P(reject) residual, word by word."""
    x, y = random_pairs(trial)
    kept = x * speculative.accept_probability(x, y)
    law = kept + (1 - kept.sum(axis=1, keepdims=True)) * speculative.residual(x, y)
    return equals(y, law, "200 random pairs over 50 words, enumerated")


def residual_law(trial: Trial) -> Finding:
    x, y = random_pairs(trial)
    expected = [[max(b - a, 0.0) for a, b in zip(*pair, strict=True)] for pair in zip(x, y, strict=True)]
    expected = [[value / sum(row) for value in row] for row in expected]
    return equals(expected, speculative.residual(x, y), "200 random pairs over 50 words, enumerated")


def distribution_error(trial: Trial) -> Finding:
    """q = s x + (1 - s) min(x, y) + R residual, R = sum_d (1 - s_d)(x_d - y_d)+."""
    x, y = random_pairs(trial)
    skips = trial.rng("skips").random(x.shape)
    beta = speculative.rejection_probability(x, y)
    rejected = ((1 - skips) * x * beta).sum(axis=1, keepdims=True)
    q = skips * x + (1 - skips) * x * (1 - beta) + rejected * speculative.residual(x, y)
    error = [sum(x_d * s_d * max(0.0, 1 - y_d / x_d) for x_d, y_d, s_d in zip(*row, strict=True) if x_d > 0)
             for row in zip(x, y, skips, strict=True)]  # fmt: skip
    return equals(error, np.abs(q - y).sum(axis=1) / 2, "200 random pairs and skipping rules, enumerated")


def uncertainty_law(trial: Trial) -> Finding:
    """Given the draft, each of K samples differs from it with p = mean of 1 - softmax(l / theta)_d over theta."""
    draws, draft, rng = 20_000 * trial.size, 1, trial.rng()
    thetas = speculative.draw_thetas("uniform", rng.random((draws, SAMPLES)))
    rows = np.broadcast_to(LOGITS, (draws, len(LOGITS)))
    uniforms = rng.random((draws, SAMPLES))
    levels = speculative.uncertainty_level(rows, np.full(draws, draft), thetas, uniforms)

    def differs(theta: float) -> float:
        return float(1 - 1 / np.exp((LOGITS - LOGITS[draft]) / max(theta, 0.01)).sum())

    p = quad(differs, 0, 2)[0] / 2
    law = stats.binom.pmf(np.arange(SAMPLES + 1), SAMPLES, p)
    return counts_follow(law, np.bincount(levels, minlength=SAMPLES + 1), f"{draws:,} drafts, K = 20, chi-square")


def uncertainty_limits(trial: Trial) -> Finding:
    logits = trial.rng().normal(size=(50, 9))
    draft = trial.rng("draft").integers(0, 9, 50)
    x = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.arange(50)
    plain, cold = (speculative.differ_probability(logits, draft, np.full((50, 1), theta))[:, 0] for theta in (1.0, 0.0))
    expected = np.concatenate([1 - x[rows, draft], draft != logits.argmax(axis=1)])
    return equals(expected, np.concatenate([plain, cold]), "50 random prefixes, enumerated")


def skips_on_the_grid(trial: Trial) -> Finding:
    """At a threshold on the grid of u, L / K, a token with u = L / K is kept: P(u <= L / K) as published, 0.6."""
    prompts = 100 * trial.size
    source = Synthetic(SYNTHETIC)
    skips = np.concatenate([keep_sure(source.answer(prompt).nodes, 9 / SAMPLES) for prompt in range(prompts)])
    return share_is(0.6, int(skips.sum()), len(skips), f"{len(skips):,} tokens of a synthetic source")


def random_skips(trial: Trial) -> Finding:
    """rand-hlm's coin is another than the LLM's: what it sends is accepted as often as any draft, 1 - E[beta]."""
    prompts = 100 * trial.size
    source = Synthetic(SYNTHETIC)
    answers = [source.answer(prompt).nodes for prompt in range(prompts)]
    gained = np.concatenate([(nodes.accepted - nodes.accept_probability)[~keep_some(nodes, 0.5)] for nodes in answers])
    chance = float(np.mean([nodes.accept_probability.mean() for nodes in answers]))
    return mean_is(chance, chance + gained, f"{len(gained):,} tokens of a synthetic source")


def thresholds(_trial: Trial) -> Finding:
    """With the paper's a, b and Delta; and fitted to tokens that lie on the line, one in five never rejected."""
    a, b, delta = 0.82, -0.06, 0.29
    u = np.array([0.06 / 0.82, 0.25, 0.5, 0.75, 1.0])
    fitted = speculative.fit_law(u, np.full(5, 0.5), 0.5 * (1 - (a * u + b)).clip(max=1.0))
    law = speculative.LinearLaw(a, b, delta)
    simulated = [law.risk_averse, law.risk_prone, *law.rejection([law.risk_averse, law.risk_prone, 0.5])]
    simulated += [fitted.a, fitted.b, fitted.delta]
    return equals([0.06 / a, 0.35 / a, 0.0, 0.29, 0.35, a, b, 0.8], simulated, "the paper's a, b and Delta")


def recorded_coins(_trial: Trial) -> Finding:
    """Along a path each coin is independent of the past, so sums of (accepted - probability) are a martingale."""
    source = Trace.read("smollm2-pair").source(HLM)
    paths = [source.path(prompt, sample) for prompt in range(source.prompts) for sample in range(source.samples)]
    chance = np.concatenate([path.accept_probability for path in paths])
    kept = np.concatenate([path.accepted for path in paths])
    return mean_is(float(chance.mean()), chance.mean() + (kept - chance), f"{len(chance):,} recorded tokens")


CLAIMS = (
    *(
        Claim(f"output law, {pair}", f"What HLM commits is distributed as the LLM's own token, {words}",
              "Leviathan et al. 2023, appendix A.1", "chi-square", partial(output_law, pair=pair))
        for pair, words in (
            ("alike", "models much alike"),
            ("opposed", "models of opposite opinion"),
            ("blind", "words that the SLM never drafts"),
        )
    ),
    *(
        Claim(f"acceptance, {pair}", f"A draft is kept with probability 1 - TV(x, y), models {words}",
              "Leviathan et al. 2023, theorem 3.5", "1", partial(acceptance, pair=pair))
        for pair, words in (("alike", "much alike"), ("opposed", "of opposite opinion"))
    ),
    Claim("equal and disjoint", "Equal models never reject a draft, models without a common word always do",
          "min(1, y/x)", "1", equal_and_disjoint),
    Claim("committed law", "Accepted plus resampled probability is the LLM's, word by word",
          "Leviathan et al. 2023, appendix A.1", "1", committed_law),
    Claim("residual", "A rejected draft is replaced from norm(max(y - x, 0))", "Chen et al. 2023", "1", residual_law),
    Claim("distribution error", "What a rule skips is all that it errs: TV(committed, LLM) = E[beta; skipped]",
          "summing the law of the committed token over words", "1", distribution_error),
    Claim("uncertainty law",
          "K u, the perturbed samples that differ from the draft, is binomial with the mean over temperatures",
          "Oh et al. 2024 (arXiv 2412.12687)", "chi-square", uncertainty_law),
    Claim("uncertainty limits", "Temperature 1 samples from x, temperature 0 is the most likely word",
          "softmax(l / theta)", "1", uncertainty_limits),
    Claim("thresholds", "The thresholds are -b/a and (Delta - b)/a, where the predicted rejection is 0 and Delta",
          "Oh et al. 2024 (arXiv 2412.12687)", "1", thresholds),
    Claim("skips on the grid", "A threshold of 9/20 keeps what lies on it: P(u <= 9/20) as it was fitted",
          "P(u <= u_th)", "1", skips_on_the_grid),
    Claim("random skips", "What rand-hlm sends is accepted as often as any draft: its coin is another than the LLM's",
          "independent coins", "1", random_skips),
    Claim("recorded coins", "In the recorded answers drafts are accepted as often as min(1, y/x) says",
          "the shipped trace, path hlm", "1", recorded_coins),
)  # fmt: skip
