"""Live tokens: the models in the loop of the simulation, for walks that no recording holds.

A recording of plain HLM gives thresholds and laws. Every prefix that a walk comes to is a node of a tree that grows:
one forward pass of each model, with the same draws as a recording's. Each pass is kept in a folder beside the
recording, so the next run replays it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.decoding import DecodingSettings, token_facts
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.model_checks import check_finite
from uhlm_sim.tokens.model_pair import ModelPair
from uhlm_sim.tokens.parts import PartStore
from uhlm_sim.tokens.payload_law import keeps_law
from uhlm_sim.tokens.prefixes import CommittedPrefixes
from uhlm_sim.tokens.prompts import read_prompts
from uhlm_sim.tokens.recorder import check_same_model, load_recorded
from uhlm_sim.tokens.recording_settings import RecordingSettings, recording_identity
from uhlm_sim.tokens.speculative import LinearLaw
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import SCHEMA_VERSION
from uhlm_sim.tokens.tree import ENDS, UNKNOWN, AnswerTree, Integers, Nodes

Prefix = tuple[int, ...]
Pass = dict[str, Any]  # what is true of the next token after a prefix, as `token_facts` has it
CACHES = 64  # answers whose keys and values are in memory
PASSES_A_FILE = 256
KEYS = ("prompt", "sample", "payload", "length", "tokens", "end_tokens")  # of a kept file; its other columns are facts


class Passes:
    """Forward passes of a pair of models after any prefix of one prompt's answers, one at a time."""

    def __init__(self, load: Callable[[], ModelPair], prompt_ids: Callable[[int], list[int]]) -> None:
        self._load = load
        self._prompt_ids = prompt_ids
        self._caches = lru_cache(maxsize=CACHES)(lambda prompt, _sample: [self._read(prompt)])

    @cached_property
    def pair(self) -> ModelPair:
        """The models, loaded when first needed."""
        return self._load()

    def logits(self, prompt: int, sample: int, prefix: Prefix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what SLM and LLM say after a prefix of an answer, (1, V) each.

        A prefix that goes on from the last one asked for extends its cache. Whatever was asked before, each model reads
        the prompt at once and then token by token, so that a prefix always gives the same numbers.
        """
        held = self._caches(prompt, sample)
        last, read = held[0]
        if prefix[: len(last)] != last:
            last, read = self._read(prompt)
        for token in prefix[len(last) :]:
            for one in read:
                one.commit(np.zeros(1, dtype=np.int64), np.array([token]))
        held[0] = prefix, read
        small, large = (one.logits.copy() for one in read)
        for model, logits in ((self.pair.slm, small), (self.pair.llm, large)):
            check_finite(model, logits, [f"number {prompt}"], len(prefix))
            logits[:, self.pair.no_token] = -np.inf
        return small, large

    def _read(self, prompt: int) -> tuple[Prefix, tuple[CommittedPrefixes, CommittedPrefixes]]:
        text, size = [self._prompt_ids(prompt)], self.pair.vocabulary_size
        return (), (CommittedPrefixes(self.pair.slm, text, size), CommittedPrefixes(self.pair.llm, text, size))


class LiveTree(AnswerTree):
    """The part of a tree that belongs to one prompt, sample and payload, and that grows where walks come by."""

    _payload: str
    _tokens: "Live"
    _passes: list[Pass]
    _prefixes: list[Prefix]
    _index: dict[Prefix, int]
    _nodes: Nodes | None

    def __init__(self, prompt: int, sample: int, payload: str, known: Mapping[Prefix, Pass], tokens: "Live") -> None:
        values = {"prompt": prompt, "sample": sample, "root": 0, "is_chain": False, "grows": True}
        values |= {"prompt_tokens": tokens.base.header.prompts[prompt].tokens}
        vars(self).update(values, _payload=payload, _tokens=tokens, _passes=[], _prefixes=[], _index={}, _nodes=None)
        for prefix in sorted(known, key=len):
            self._add(prefix, known[prefix])
        if () not in self._index:
            self._add((), tokens.compute(prompt, sample, payload, ()))

    @property
    def nodes(self) -> Nodes:
        """All nodes so far, in the order in which they were added."""
        if self._nodes is None:
            vars(self)["_nodes"] = self._arrays()
        assert self._nodes is not None
        return self._nodes

    @property
    def hlm(self) -> Integers:
        """The nodes along the answer of plain HLM."""
        path = [self.root]
        while (after := self.grow(path[-1], int(self._passes[path[-1]]["verified"]))) != ENDS:
            path.append(after)
        return np.array(path)

    def grow(self, node: int, token: int) -> int:
        """Return the node after a token, by a forward pass of each model if it is new; ENDS where the answer does."""
        prefix = (*self._prefixes[node], token)
        if self._ends(prefix):
            return ENDS
        if prefix not in self._index:
            self._add(prefix, self._tokens.compute(self.prompt, self.sample, self._payload, prefix))
        return self._index[prefix]

    def _ends(self, prefix: Prefix) -> bool:
        return prefix[-1] in self._tokens.end_tokens or len(prefix) >= self._tokens.decoding.max_tokens

    def _add(self, prefix: Prefix, facts: Pass) -> None:
        self._index[prefix] = len(self._prefixes)
        self._prefixes.append(prefix)
        self._passes.append(facts)
        vars(self)["_nodes"] = None

    def _arrays(self) -> Nodes:
        header = self._tokens.base.header
        columns = {name: np.array([facts[name] for facts in self._passes]) for name in self._passes[0]}
        position = np.array([len(prefix) for prefix in self._prefixes], dtype=np.int32)
        coins, known = self._tokens.draws(self.prompt, self.sample).skip, np.ones(len(position), dtype=np.bool_)

        def after(tokens: NDArray[np.integer]) -> NDArray[np.int32]:
            prefixes = [(*prefix, token) for prefix, token in zip(self._prefixes, tokens.tolist(), strict=True)]
            return np.array(
                [ENDS if self._ends(prefix) else self._index.get(prefix, UNKNOWN) for prefix in prefixes], np.int32
            )

        return Nodes(
            position=position,
            draft=columns["draft"].astype(np.int32),
            uncertainty=columns["level"] / header.uncertainty_samples,
            x_draft=columns["x_draft"].astype(np.float64),
            y_draft=columns["y_draft"].astype(np.float64),
            accept_coin=columns["accept_coin"].astype(np.float64),
            skip_coin=coins[position],
            phase=np.repeat(coins[:1], len(position)),
            entropy=columns["entropy"].astype(np.float64),
            top1_probability=columns["top1_probability"].astype(np.float64),
            second_probability=columns["second_probability"].astype(np.float64),
            tail_mass=np.stack([columns[f"tail_{k}"] for k in header.tail_ladder], axis=1).astype(np.float32),
            verdict=columns["verified"].astype(np.int32),
            by_llm=columns["direct"].astype(np.int32),
            bonus=columns["bonus"].astype(np.int32),
            after_draft=after(columns["draft"]),
            after_verdict=after(columns["verified"]),
            after_llm=after(columns["direct"]),
            after_bonus=after(columns["bonus"]),
            recorded=known,
            drawn=known,
            judged=known,
            uncertainty_samples=header.uncertainty_samples,
            vocabulary_size=header.vocabulary_size,
            payload=self._payload,
            tail_ladder=header.tail_ladder,
        )


@dataclass(frozen=True)
class LiveSource:
    """The answers under one rule: the tree depends on its payload alone, and the scheme decides on the walk."""

    tokens: "Live"
    rule: DecodingRule
    recorded: str = ""

    @property
    def prompts(self) -> int:
        return self.tokens.base.prompts

    @property
    def samples(self) -> int:
        return self.tokens.base.header.samples

    @property
    def vocabulary_size(self) -> int:
        return self.tokens.base.header.vocabulary_size

    @property
    def uncertainty_samples(self) -> int:
        return self.tokens.base.header.uncertainty_samples

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        return self.tokens.tree(prompt, sample, self.rule.payload)


class Live:
    """A `TokenSet` that decodes while the cell runs.

    ``base`` is the recording of plain HLM with the same settings, of which thresholds and laws are made. ``load`` loads
    the models, ``prompt_ids`` gives a prompt's token ids by its number. Passes that an earlier run kept are read from
    the folder of ``parts``, and `keep` writes down those that this process made since. ``digest`` says what decides the
    tokens, see `TokenSet`.
    """

    def __init__(
        self,
        base: Trace,
        decoding: DecodingSettings,
        load: Callable[[], ModelPair],
        prompt_ids: Callable[[int], list[int]],
        parts: PartStore,
        digest: str,
    ) -> None:
        self.base, self.decoding, self.digest = base, decoding, digest
        self.draws = lru_cache(maxsize=None)(self._draws)
        self.tree = lru_cache(maxsize=None)(self._tree)
        self._passes, self._parts = Passes(load, prompt_ids), parts
        self._known: dict[tuple[int, int, str], dict[Prefix, Pass]] = {}
        self._new: list[tuple[int, int, str, Prefix, Pass]] = []
        self._ends: frozenset[int] | None = None
        for columns in parts.load_all():
            self._take(columns)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self._passes.pair.end_tokens if self._ends is None else self._ends

    def compute(self, prompt: int, sample: int, payload: str, prefix: Prefix) -> Pass:
        """Return what is true of the next token after a prefix, by one pass of each model."""
        x, y = self._passes.logits(prompt, sample, prefix)
        draws, position = self.draws(prompt, sample), len(prefix)
        here = {field.name: getattr(draws, field.name)[position][None] for field in fields(draws)}
        of_payload = token_facts(x, y, here, ["", payload], self.decoding)
        facts = of_payload[payload]
        lossless = payload if keeps_law(payload, self.base.header.vocabulary_size) else ""
        facts["bonus"] = of_payload[lossless]["verified"]
        of_token = {name: values[0].item() for name, values in facts.items()}
        self._new.append((prompt, sample, payload, prefix, of_token))
        if len(self._new) >= PASSES_A_FILE:
            self.keep()
        return of_token

    def keep(self) -> None:
        """Write down the passes that were made since the last time; nothing if there are none."""
        if not self._new:
            return
        prompts, samples, payloads, prefixes, facts = zip(*self._new, strict=True)
        columns = {"prompt": np.array(prompts), "sample": np.array(samples), "payload": np.array(payloads)}
        columns |= {"length": np.array([len(prefix) for prefix in prefixes])}
        columns |= {"tokens": np.array([token for prefix in prefixes for token in prefix], dtype=np.int64)}
        columns |= {"end_tokens": np.array(sorted(self.end_tokens))}
        columns |= {name: np.array([one[name] for one in facts]) for name in facts[0]}
        content = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns.values()))
        self._parts.save(columns, content.hexdigest())
        self._new.clear()

    def _take(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self._ends = frozenset(columns["end_tokens"].tolist())
        ends = columns["length"].cumsum().tolist()
        tokens, names = columns["tokens"].tolist(), [name for name in columns if name not in KEYS]
        rows = zip(*(columns[name].tolist() for name in names), strict=True)
        keys = zip(*(columns[name].tolist() for name in KEYS[:3]), strict=True)
        for key, end, length, facts in zip(keys, ends, columns["length"].tolist(), rows, strict=True):
            prefix = tuple(tokens[end - length : end])
            self._known.setdefault(key, {}).setdefault(prefix, dict(zip(names, facts, strict=True)))

    def _draws(self, prompt: int, sample: int) -> Any:
        entry, chosen = self.base.header.prompts[prompt], self.decoding
        return answer_draws(chosen.seed, entry.id, sample, chosen.max_tokens, chosen.uncertainty_samples)

    def _tree(self, prompt: int, sample: int, payload: str) -> LiveTree:
        return LiveTree(prompt, sample, payload, self._known.get((prompt, sample, payload), {}), self)

    def source(self, rule: DecodingRule) -> LiveSource:
        """Return the answers under a rule. All are exact: what no one came by is decoded."""
        return LiveSource(self, rule)

    def law(self, gate: str = "uncertainty") -> LinearLaw:
        """Return the law of the calibration prompts."""
        return self.base.law(gate)

    def threshold_at(self, risk: float, gate: str = "uncertainty") -> float:
        """Return the largest threshold of that risk on the calibration prompts; -1 keeps none."""
        return self.base.threshold_at(risk, gate)

    def check_gate(self, gate: str) -> None:
        """Raise TraceError if the recording doesn't know drafts by that measure of doubt."""
        self.base.check_gate(gate)

    def acceptance(self) -> float:
        """Return the mean acceptance on the calibration prompts."""
        return self.base.acceptance()

    def skip_rate(self, rule: DecodingRule) -> float:
        """Return the share of tokens that a rule skips along the answers of HLM."""
        return self.base.skip_rate(rule)

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise TraceError if answers of so many tokens aren't decoded."""
        self.base.check_max_tokens(max_tokens)

    def provenance(self) -> dict[str, Any]:
        """Return what `provenance.json` says of it: the recording it began with, and that it went on."""
        return {**self.base.provenance(), "live": True}

    def assumptions(self, max_tokens: int, *, matched: bool) -> list[str]:
        """Return the assumptions of a run that decodes up to ``max_tokens``, as sentences."""
        return [
            *self.base.assumptions(max_tokens, matched=matched),
            "Tokens are LIVE: each prefix was decoded by the models when a policy came to it, one at a time, and kept. "
            "The recording gives thresholds and laws alone, so no answer here has a measured quality.",
        ]


def open_live(settings: RecordingSettings, path: Path) -> Live:
    """Return the live tokens that go on from a recording of plain HLM with the same settings, a file.

    Raises TraceError if there is none, and InputError, once a pass is needed, for models that aren't the recording's.
    """
    base, prompts = Trace.read(path), read_prompts(settings.prompts)
    settings = settings.here(base.header.settings)
    revisions = [str(base.header.models[role].get("revision")) for role in ("slm", "llm")]
    identity = recording_identity(settings, prompts) | {"revisions": revisions}
    digest = hashlib.sha256(json.dumps(["live", SCHEMA_VERSION, identity], sort_keys=True).encode()).hexdigest()

    @cache
    def load() -> ModelPair:
        pair = load_recorded(settings, base.header)
        for role, model in (("slm", pair.slm), ("llm", pair.llm)):
            check_same_model(path, base.header, role, model.revision)
        return pair

    def prompt_ids(prompt: int) -> list[int]:
        return load().encode(prompts[prompt].prompt, settings.system_message, settings.chat_template)

    parts = PartStore(path.with_name(f"{path.name}.live") / digest[:16], identity)
    return Live(base, settings.decoding, load, prompt_ids, parts, digest)
