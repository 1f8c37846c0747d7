"""What all tables of a scenario file share: strict frozen values, common types, and presets."""

from collections.abc import Set as AbstractSet
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from uhlm_sim.errors import did_you_mean
from uhlm_sim.names import load_presets

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Decibels = Annotated[float, Field(ge=-100, le=100)]
Watts = Annotated[float, Field(ge=0, le=1e6)]
Kind = Annotated[str, Field(min_length=1, max_length=200)]
Weight = Annotated[float, Field(ge=1e-3, le=1e6)]  # of the band: sums of weights keep nine digits of the least one
LEAST = 1e-30  # below it powers and quotients of what must be positive would underflow


class Section(BaseModel):
    """A table of the file: frozen, strictly typed, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def representable(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse numbers below LEAST where 0 is refused."""
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and 0.0 < number < LEAST and info.field_name in _positive(cls):
                raise ValueError(f"must be at least {LEAST:g}, the least that is computed with")
        return value


@cache
def _positive(section: type[Section]) -> set[str]:
    """Return the keys of a table that must be greater than 0, or lists of what must be."""
    keys = section.model_json_schema()["properties"].items()
    return {key for key, schema in keys if "'exclusiveMinimum': 0" in str(schema)}


def with_preset(
    values: Any,
    key: str,
    fields: set[str],
    default: str | None = None,
    also: AbstractSet[str] = frozenset(),
    table: str | None = None,
) -> Any:
    """Fill the fields that the user left out from a preset; those in `also` only some presets have.

    `table` is where the presets stand, `key` if None.
    """
    if not isinstance(values, dict):
        return values
    name = values.get(key, None if fields <= values.keys() else default)
    if not isinstance(name, str):
        return values
    presets = load_presets()[table or key]
    if name not in presets:
        raise ValueError(f"no preset '{name}'; presets are {', '.join(presets)}{did_you_mean(name, presets)}")
    preset = {field: value for field, value in presets[name].items() if field in fields | also}
    return {**preset, key: name, **values}
