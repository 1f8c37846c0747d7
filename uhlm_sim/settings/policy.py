"""A policy: how phones answer, and what an upload carries."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Kind, Section

Rule = Literal["risk-averse", "risk-prone"]
MOST_DRAFTS = 256


class Target(Section):
    """A threshold by what it is for, in place of a number: a risk that is met, or a price that a phone weighs."""

    risk: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="the largest threshold at which kept calibration tokens have this mean beta at most"
    )
    price_s: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="moves with the network: a draft is kept while beta times this is less than a visit would take",
    )

    @model_validator(mode="after")
    def one_of_them(self) -> "Target":
        if (self.risk is None) == (self.price_s is None):
            raise ValueError("needs risk or price_s, one of them")
        return self


class Payload(Section):
    """What an upload says of a draft. Bits by `kind`, with a vocabulary of V entries and b = bits_per_probability:

    full: V (b + bits_per_index). top-k, truncated: k (b + bits_per_index). quantised: ceil(log2 C(levels + V - 1,
    V - 1)) + ceil(log2 V). ids: ceil(log2 V) + b.
    """

    kind: Literal["full", "top-k", "truncated", "quantised", "ids"] = Field(
        "full",
        description="all probabilities; the k largest; the k largest, from which the draft is drawn; all, rounded to a "
        "lattice; the draft's id and probability",
    )
    bits_per_probability: int = Field(8, ge=1, le=64, description="as U-HLM and CU-HLM have it; TK-SLT takes 16")
    bits_per_index: int | None = Field(
        None,
        ge=0,
        le=64,
        description="full: 0, in the order of the vocabulary; top-k: ceil(log2 V); truncated: 0, as its paper counts",
    )
    k: int | None = Field(None, ge=1, le=10_000_000, description="top-k, truncated: entries of an upload")
    most_loss: float | None = Field(
        None, gt=0, le=100, description="top-k, in place of k: by token, the fewest entries that lose at most this"
    )
    levels: int | None = Field(None, ge=1, le=100_000, description="quantised: probabilities are multiples of 1/levels")
    replaced_by: Literal["phone", "base-station"] | None = Field(
        None, description="ids: who replaces a refused draft; phone, which is sent the LLM's distribution"
    )

    @model_validator(mode="after")
    def complete(self) -> "Payload":
        owners = {
            "k": ("top-k", "truncated"),
            "most_loss": ("top-k",),
            "levels": ("quantised",),
            "replaced_by": ("ids",),
            "bits_per_index": ("full", "top-k", "truncated"),
        }
        for key, kinds in owners.items():
            if getattr(self, key) is not None and self.kind not in kinds:
                raise ValueError(f"{key} belongs to {' and '.join(kinds)}")
        if self.kind == "top-k" and (self.k is None) == (self.most_loss is None):
            raise ValueError("kind = 'top-k' needs k or most_loss, one of them")
        for kind, key in (("truncated", "k"), ("quantised", "levels")):
            if self.kind == kind and getattr(self, key) is None:
                raise ValueError(f"kind = '{kind}' needs {key}")
        return self

    @property
    def law(self) -> str:
        """Return what decides which token an upload leads to, by its word in `tokens/payload_law.py`.

        A number of entries that changes by token has no word: there it is "", as for all of x.
        """
        if self.kind == "top-k" and self.k is None:
            return ""
        own_token = self.replaced_by == "base-station"
        return self.label if self.kind in ("top-k", "truncated", "quantised") or own_token else ""

    @property
    def label(self) -> str:
        """Return what it is called in a policy's label."""
        if self.most_loss is not None:
            return f"top-k loss {self.most_loss:g}"
        if self.replaced_by == "base-station":
            return "ids-own-token"
        kind = self.kind.removesuffix("-k")
        number = self.k or self.levels
        return kind if number is None else f"{kind}-{number}"


class Policy(Section):
    kind: Kind = Field(description="see `uhlm-sim list`; or module:object")
    name: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        pattern=r"^[^$\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+$",
        description="its label in tables and figures",
    )
    threshold: Rule | Annotated[float, Field(ge=0, le=1)] | Target | None = Field(
        None, description="u-hlm: a token with u at most this is kept; a rule of its paper, a number, a risk or a price"
    )
    gate: Literal["uncertainty", "entropy", "top1", "margin"] | None = Field(
        None,
        description="u-hlm: what the threshold is for: u; the entropy over its most; 1 - the largest probability; or "
        "1 - its distance from the second",
    )
    skip_rate: Literal["matched"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="rand-hlm, periodic-hlm: share of tokens kept; matched: as many as a u-hlm keeps"
    )
    match: str | None = Field(None, description="the policy whose skip rate is met; the first u-hlm if unset")
    draft_tokens: Literal["best", "learnt", "confident"] | Annotated[int, Field(ge=1, le=MOST_DRAFTS)] | None = Field(
        None,
        description="drafts of one upload, a window; best: by a formula; learnt: while it runs; confident: up to the "
        "first one above hlm's threshold; one if unset",
    )
    max_draft_tokens: int | None = Field(
        None, ge=1, le=MOST_DRAFTS, description="where it isn't a number: the longest window; 16"
    )
    bonus_token: bool | None = Field(
        None, description="all drafts accepted: the LLM's own next token, too; as a rule with draft_tokens"
    )
    payload: Payload | None = Field(None, description="in place of uplink.payload")
    bill: Literal["paper", "all"] = Field("paper", description="what the payload's paper counts; or all ids, too")
    params: dict[str, float] = Field({}, description="arguments of a policy of your own")

    @model_validator(mode="after")
    def fitting(self) -> "Policy":
        if self.match is not None and self.skip_rate != "matched":
            raise ValueError('match belongs to skip_rate = "matched"')
        if self.max_draft_tokens is not None and not isinstance(self.draft_tokens, str):
            raise ValueError('max_draft_tokens belongs to draft_tokens = "best", "learnt" or "confident"')
        return self

    @property
    def has_bonus(self) -> bool:
        """Say whether the LLM's own next token comes along where all drafts are accepted."""
        return self.draft_tokens is not None if self.bonus_token is None else self.bonus_token

    @property
    def label(self) -> str:
        """Its label in tables and figures: its name, else its kind with what differs from the default."""
        if self.name is not None:
            return self.name
        number = self.threshold if self.threshold is not None else self.skip_rate
        words = str(number)
        if isinstance(number, Target):
            words = f"price {number.price_s} s" if number.risk is None else f"risk {number.risk}"
        gate = f"{self.gate} " if self.gate not in (None, "uncertainty") else ""
        parts = [] if number is None or number == "matched" else [f"{gate}{words}"]
        if self.draft_tokens is not None:
            parts.append(f"{self.draft_tokens} draft{'s' * (self.draft_tokens != 1)}")
        if self.has_bonus != (self.draft_tokens is not None):
            parts.append("bonus" if self.has_bonus else "no bonus")
        if self.payload is not None:
            parts.append(self.payload.label)
        if self.bill != "paper":
            parts.append(f"bill {self.bill}")
        return f"{self.kind}({', '.join(parts)})" if parts else self.kind
