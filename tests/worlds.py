"""Small real things for tests: a made-up token source, a ready policy over it, a scenario in one line, known air."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import simpy

from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import POLICIES, ReadyPolicy
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD, Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.seams import NamedFunctions
from uhlm_sim.tokens.gates import keep_some
from uhlm_sim.tokens.tree import AnswerTree, chain

NUMBERS = {"u-hlm": {"threshold": 0.5}, "rand-hlm": {"skip_rate": 0.5}}


@dataclass(frozen=True)
class MadeUpSource:
    """Answers of `tokens` tokens with random uncertainty: one text, whatever is kept."""

    tokens: int = 50
    prompts: int = 20
    prompt_tokens: int = 10
    samples: int = 1
    vocabulary_size: int = 32_000
    uncertainty_samples: int = 20

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        rng = np.random.default_rng([prompt, sample])
        n = self.tokens
        uniform = rng.random(n)
        x_draft = rng.uniform(0.2, 1.0, n)
        return chain(
            prompt,
            sample,
            self.prompt_tokens,
            verdict=np.arange(n),
            draft=np.arange(n),
            uncertainty=np.floor(uniform * self.uncertainty_samples) / self.uncertainty_samples,
            x_draft=x_draft,
            y_draft=x_draft * rng.uniform(0.4, 1.2, n),
            accept_coin=rng.random(n),
            skip_coin=uniform,
            entropy=rng.random(n),
            top1_probability=x_draft,
            second_probability=(1 - x_draft) / 2,
            tail_mass=np.zeros((n, 0)),
            uncertainty_samples=self.uncertainty_samples,
            vocabulary_size=self.vocabulary_size,
        )


def agrees(theory: float, values: Any, errors: float = 4.0, within: float = 0.05) -> bool:
    """Say whether the mean of independent values is a theory's, within standard errors of the values themselves.

    The values must also be enough to tell: their tolerance may not exceed the fraction `within` of the theory.
    """
    values = np.asarray(values, dtype=np.float64)
    tolerance = errors * values.std(ddof=1) / np.sqrt(len(values)) + 1e-12 * abs(theory)
    assert tolerance <= within * abs(theory), f"tolerance {tolerance:.3g} is too wide for {theory:.6g}"
    assert abs(values.mean() - theory) <= tolerance, f"{values.mean():.6g} +- {tolerance:.3g} is not {theory:.6g}"
    return True


def ready(kind: str = "hlm", label: str | None = None, skip_rate: float = 0.0, **source: Any) -> ReadyPolicy:
    """Return a policy that replays made-up answers; u-hlm and rand-hlm keep the share `skip_rate` of their drafts."""
    scheme = POLICIES[kind](**NUMBERS.get(kind, {}))
    if kind in NUMBERS:
        scheme = replace(scheme, gate=partial(keep_some, skip_rate=skip_rate))
    return ReadyPolicy(label or kind, kind, MadeUpSource(**source), exact=True, scheme=scheme)


def cell(**changes: Any) -> Scenario:
    """Return a small scenario: sections as keyword arguments, each a dict of what differs from the default."""
    values = {
        "name": "test",
        "tokens": {"kind": "trace", "path": "made-up"},
        "policy": [{"kind": "hlm"}],
        "duration_s": 30.0,
        "warmup_s": 5.0,
        **changes,
    }
    return parse_scenario(values, "test")


def with_own(scenario: Scenario) -> NamedFunctions:
    """Return what a scenario names, code of the user's own among it."""
    return find_names(scenario, allow_plugins=True)


def check_with_own(scenario: Scenario) -> None:
    """Check a scenario of a made-up policy, code of the user's own included."""
    check_scenario(scenario, [ready()], with_own(scenario))


def known_air(gains: Any, coherence_s: float, mean_snr: Any = 1.0, efficiency_of: Any = lambda snr: snr) -> Air:
    """Return an air whose gain of device i in block k is `gains[i][k]` and 1 after the last; bit/s/Hz is the SNR."""

    def fading(row: Any, size: int) -> Any:
        row = np.asarray(row, dtype=np.float64)
        while True:
            yield np.concatenate([row[:size], np.ones(max(size - len(row), 0))])
            row = row[size:]

    return Air(
        np.full(len(gains), mean_snr, dtype=np.float64),
        efficiency_of,
        gains_of=lambda device: fading(gains[device], BLOCKS_AHEAD),
        coherence_s=coherence_s,
    )


def transmit(uploads: Any, air: Air, bandwidth_hz: float = 1.0, **uplink: Any) -> tuple[list[Job], Uplink]:
    """Send uploads (time, device, bits, own gain or nothing) and return the jobs in the order they ended."""
    env, ended = simpy.Environment(), []

    def deliver(job: Job) -> None:
        job.received_s = env.now
        ended.append(job)

    band = Uplink(env, bandwidth_hz=bandwidth_hz, air=air, deliver=deliver, **uplink)

    def source() -> Any:
        for at_s, device, bits, *gain in uploads:
            yield env.timeout(at_s - env.now)
            band.send(Job(device, bits, 1, env.now, Wakeup(env), *gain))

    env.process(source())
    env.run()
    band.settle()
    return ended, band


def still_air(*snr: float, efficiency_of: Any = lambda snr: snr) -> Air:
    return Air(np.array(snr, dtype=float), efficiency_of)


def shannon(snr: Any) -> Any:
    return np.log2(1 + snr)


def timeline(uploads: Any, air: Air, name: str, **uplink: Any) -> dict[int, tuple[float, float]]:
    """Send uploads by an allocator and return (end, airtime) of each device."""
    ended, band = transmit(uploads, air, allocator=ALLOCATORS[name], **uplink)
    assert band.counters.busy_s == pytest.approx(sum(job.airtime_s for job in ended), rel=1e-12)
    return {job.device: (job.received_s, job.airtime_s) for job in ended}
