"""Readers of the report's sentences: each pattern with what must hold of the run's tables where it is said.

Every sentence is read back by its own words. What it claims is then computed from the tidy table of replications, or
from `bottleneck_table` and the requests, not by what wrote the sentence.
"""

import math
import re
from itertools import product

import numpy as np

from uhlm_sim.analysis.measures.bottleneck import bottleneck_table
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.analysis.report.sentences import answers

NUMBER = r"≈?−?[\d,]+(?:\.\d+)?(?:e[−+-]\d+)?|–"
TIMES = rf"(?:{NUMBER})(?: \((?:no interval|too few replications|(?:{NUMBER}) to (?:{NUMBER}))\))?"
UNITS = {
    "traffic.devices": (1, "", r" phones?"),
    "channel.mean_snr_db": (1, "", " dB"),
    "uplink.bandwidth_hz": (1e-6, "", " MHz"),
    "uplink.payload.bits_per_probability": (1, "", r" bits? a probability"),
    "policy.u-hlm(0.2).threshold": (1, "threshold ", ""),
}
CLAIMS = {}  # pattern -> the check of what it claims; POLICY and LIST stand for labels of the run, REST for any words
ENERGY = {"the phone's computing": "device", "its radio": "radio", "the base station's share": "base_station"}
RATE = "token_throughput_per_device"
CHANCE, EXACT = 1e-6, 1e-9  # of a value: what nine digits of summary.csv leave


class Reader:
    """A run's tables, asked for what a sentence claims; a claim that fails is an AssertionError."""

    def __init__(self, results):
        self.results, self.policies, self.keys = results, results.policies, results.sweep
        table = results.replications
        self.at = table.drop_duplicates("point")[self.keys].reset_index(drop=True)
        self.points = range(len(self.at))
        self.values = {
            key: rows.sort_values("replication")["value"].to_numpy()
            for key, rows in table.groupby(["point", "policy", "metric"], sort=False)
        }
        self.replications = table["replication"].nunique()
        self.stations, self.sentences = bottleneck_table(results), answers(results)
        self.is_open = not results.provenance["closed_loop"]
        self.words = verdicts(table, results.terms).set_index(["point", "policy"])["verdict"]
        self.names = "|".join(map(re.escape, sorted(self.policies, key=len, reverse=True)))
        self.list = rf"(?:(?:{self.names}), )*(?:{self.names})(?: and (?:{self.names}))?"

    # What the tables hold

    def of(self, point, policy, metric):
        return self.values.get((point, policy, metric), np.full(self.replications, np.nan))

    def mean(self, point, policy, metric):
        return tuple(map(float, student_t(self.of(point, policy, metric))[:3]))

    def ratio(self, point, policy, metric, first=None):
        its = self.of(point, policy, metric)
        return tuple(map(float, paired_ratio(its, self.of(point, first or self.policies[0], metric))[:3]))

    def all(self, show, policy, metric):
        return [show(point, policy, metric) for point in self.points]

    def holding(self, condition):
        return {key for key in product(self.points, self.policies) if condition(*key)}

    # What words mean

    def item(self, key, point):
        """Return the text of a point's value of a swept key without its unit."""
        value = self.at.at[point, key]
        return value if isinstance(value, str) else f"{value * UNITS[key][0]:.9g}".replace("-", "−")

    def having(self, text):
        """Return the swept key that words speak of, and the points that have one of its values: "10 and 20 MHz"."""
        for key in self.keys:
            _, before, unit = UNITS.get(key, (1, "", ""))
            found = re.fullmatch(f"{before}(.+?){unit}", text)
            items = re.split(", | and ", found[1]) if found else []
            known = [self.item(key, point) for point in self.points]
            if items and set(items) <= set(known):
                return key, {point for point in self.points if known[point] in items}
        raise AssertionError(f"no swept value: '{text}'")

    def place(self, text):
        """Return the point of "10 MHz with first-come"."""
        named = set.intersection(*(self.having(part)[1] for part in text.split(" with ")))
        assert len(named) == 1, text
        return named.pop()

    def where(self, text):
        """Return the points of " from 10 phones on", " with 5 dB or 10 dB at 20 phones, with 20 dB everywhere"."""
        if not text or text == " everywhere":
            assert text or len(self.points) == 1, "no place is named in a sweep"
            return set(self.points)
        points = set()
        for part in re.split(r", (?=with )", text.strip()):
            groups, within = re.fullmatch(r"(?:with (.+?) )?((?:everywhere|from|up to|at)\b.*)", part).groups()
            here = set().union(*(self.having(name)[1] for name in groups.split(" or "))) if groups else set(self.points)
            points |= here & self.within(within)
        return points

    def within(self, text):
        if text == "everywhere":
            return set(self.points)
        if text.startswith("at "):
            return self.having(text[3:])[1]
        least, most = re.fullmatch(r"(?:from (.+?))?(?: ?(?:up )?to (.+)| on)?", text).groups()
        key, _ = self.having(least or most)
        low, high = (self.at.loc[list(self.having(end)[1]), key].iloc[0] if end else None for end in (least, most))
        value = self.at[key]
        return set(value.index[(value >= (low if least else value.min())) & (value <= (high if most else value.max()))])

    def under(self, text):
        """Return the (point, policy) of "hlm and llm from 20 phones on; slm everywhere"."""
        found = set()
        for part in text.split("; "):
            names, where = re.fullmatch(rf"({self.list})(.*)", part).groups()
            found |= set(product(self.where(where), re.split(", | and ", names)))
        return found

    # What a sentence claims of values

    def course(self, text, show, truths, of=""):
        """Check values at named points, or one of all points; each is as the table has it, the ends hold all others."""
        known = [point for point in self.points if math.isfinite(truths[point][0])]
        if text == f"–{of}":
            assert not known, "a value is known"
            return
        about = re.fullmatch(rf"about (.+?){re.escape(of)}", text)
        if about:
            middle = value_of(about[1])
            assert any(agrees(about[1], show, truths[point]) for point in known)
            assert all(abs(truths[point][0] * scale(show) - middle) <= 0.15 * abs(middle) for point in known), truths
            return
        text, overlap = re.fullmatch(r"(.*?)(, whose intervals overlap)?", text).groups()
        value = rf"(?:{NUMBER}) %" if show == "percent" else TIMES
        ahead = rf"(?=$|(?:, | and )(?:{value})(?: at |$|{re.escape(of)}))"
        parts = list(re.finditer(rf"(?:^|, | and )({value})({re.escape(of)})?(?: at (.+?))?{ahead}", text))
        assert "".join(part[0] for part in parts) == text, f"can't be read: '{text}'"
        if parts[0][3] is None:
            assert len(parts) == 1
            assert known == list(self.points), "a value without a place, not known everywhere"
            assert all(agrees(parts[0][1], show, truths[point]) for point in self.points), truths
            return
        points = [self.place(part[3]) for part in parts]
        assert all(agrees(part[1], show, truths[point]) for part, point in zip(parts, points, strict=True)), truths
        low, high = min(truths[point] for point in points), max(truths[point] for point in points)
        assert not overlap or low[2] >= high[1] * (1 - EXACT)
        lows = [truths[point][1] for point in points if math.isfinite(truths[point][1])]
        highs = [truths[point][2] for point in points if math.isfinite(truths[point][1])]
        for point in known if lows else ():  # none is beyond all that are named, and beyond chance
            assert not truths[point][1] > max(highs), (point, truths)
            assert not truths[point][2] < min(lows), (point, truths)

    def span(self, text, shares):
        """Check "42 %" or "42 to 77 %" against the least and most of some shares."""
        ends = [float(end) for end in text.removesuffix(" %").split(" to ")]
        least, most = 100 * np.nanmin(shares), 100 * np.nanmax(shares)
        assert abs(ends[0] - least) <= 0.5 + EXACT, (text, shares)
        assert abs(ends[-1] - most) <= 0.5 + EXACT, (text, shares)


def scale(show):
    return 100.0 if show == "percent" else 1.0


def value_of(text):
    return float(re.match(NUMBER, text)[0].lstrip("≈").replace(",", "").replace("−", "-"))


def is_printed(text, value):
    """Say whether a number is a value rounded to the digits that are printed, of "≈" to two."""
    if text == "–":
        return not math.isfinite(value)
    printed, digits = value_of(text), re.split("e", text)[0].partition(".")[2]
    unit = 10.0 ** (-len(digits) + (int(text.split("e")[1].replace("−", "-")) if "e" in text else 0))
    if text.startswith("≈") and value:
        unit = max(unit, 10.0 ** (math.floor(math.log10(abs(value))) - 1))
    return abs(printed - value) <= unit / 2 + CHANCE * abs(value) + 1e-12


def agrees(text, show, truth):
    """Say whether a value's text, with the interval that it gives, is what the tables have."""
    mean, low, high = (x * scale(show) for x in truth)
    found = re.fullmatch(
        rf"({NUMBER})(?: \((?:(no interval)|(too few replications)|({NUMBER}) to ({NUMBER}))\)| %)?", text
    )
    if not is_printed(found[1], mean):
        return False
    if found[2]:
        return math.isnan(low)
    if found[3]:
        return high - low > abs(mean) * (1 - CHANCE)
    if found[4]:
        return is_printed(found[4], low) and is_printed(found[5], high)
    return show != "times" or not math.isfinite(mean) or high - low <= CHANCE * abs(mean)


def says(pattern):
    def keep(check):
        CLAIMS[pattern] = check
        return check

    return keep


@says(r"Energy of a token: (REST)\.")
def energy_by_part(run, text):
    for clause in text.split("; "):
        policy, rest = re.fullmatch(rf"under ({run.names}) (.*)", clause).groups()
        words = "|".join(ENERGY)
        for part, shown in re.findall(rf"(?:^|, | and )({words}) (.*?)(?=$|(?:, | and )(?:{words}))", rest):
            run.course(shown, "plain", run.all(run.mean, policy, f"energy_per_token_j.{ENERGY[part]}"), " J")


@says(r"The power of (REST) isn't known, so neither is the whole energy of a token\.")
def energy_unknown(run, parts):
    known = {metric for _, _, metric in run.values if metric.startswith("energy_per_token_j.")}
    assert {f"energy_per_token_j.{ENERGY[part]}" for part in re.split(", | and ", parts)} & known == set()


@says(r"The whole energy of a token, as a multiple of (POLICY)'s: (REST)\.")
def energy_against_first(run, first, text):
    assert first == run.policies[0]
    for clause in text.split("; "):
        policy, shown = re.fullmatch(rf"({run.names}) (.*)", clause).groups()
        run.course(shown, "times", run.all(run.ratio, policy, "energy_per_token_j"))


def rows_at(run, where, *stations):
    """Return the stations' rows of a set of (point, policy), all of which these stations limit and no other."""
    table = run.stations[[key in where for key in zip(run.stations["point"], run.stations["policy"], strict=True)]]
    names = [{"the phones themselves": "phones"}.get(name, name.removeprefix("the ")) for name in stations]
    limiting = table[table["limits"]].groupby(["point", "policy"])["station"].apply(set)
    assert set(limiting.index) == where
    assert all(names_here == set(names) for names_here in limiting)
    return table[table["station"].isin(names)], table[~table["station"].isin([*names, "phones"])]


def near(run, point):
    """Return the rates of the policies within 0.05 of the LLM's law, the fastest first."""
    policies = [name for name in run.policies if run.mean(point, name, "distribution_error")[0] <= 0.05]
    rates = {name: run.mean(point, name, RATE)[0] for name in policies}
    return sorted((name for name in rates if math.isfinite(rates[name])), key=lambda name: -rates[name])


def unbeaten(run, point):
    fast = near(run, point)
    return [name for name in fast if not any(run.ratio(point, other, RATE, name)[1] > 1 for other in fast)]
