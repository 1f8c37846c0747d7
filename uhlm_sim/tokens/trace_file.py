"""The file of a recorded trace: one parquet table with a row per token, and a header in its metadata.

Rows are sorted by prompt, sample, path and position, so that the answers which different rules give to one
prompt lie side by side and their common beginnings compress to nothing. The header carries the SHA-256 of
itself and of all columns; a file that doesn't agree with it is refused. Nothing in it is executed when read.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from uhlm_sim.errors import InputError, TraceError, did_you_mean
from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.prompts import SPLITS
from uhlm_sim.tokens.speculative import rounded_up

SCHEMA_VERSION = 4
# What a version has that the ones before hadn't: it is read as not known from their files.
SINCE = {2: QUALITY[:2], 3: ("second_probability",), 4: QUALITY[2:]}
BOUNDS_SINCE = 3  # tail masses are upper bounds
HEADER_KEY, DIGEST_KEY = b"uhlm_sim.trace", b"uhlm_sim.sha256"
MOST_ROWS = 10**8  # some 5 GB in memory
TAIL_BITS = 5  # of a tail mass, an upper bound that decides whether a verdict is known
UNKNOWN_LEVEL = 255  # the rule `llm` drafts nothing, so it has no uncertainty
BUILT_IN = Path(__file__).parent / "data"

Columns = dict[str, NDArray[Any]]
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

# name -> dtype on disk; `tail` stands for one column per member of the header's tail ladder
COLUMNS: dict[str, str] = {
    "prompt": "uint16",  # index into the header's prompts
    "sample": "uint8",
    "path": "uint8",  # index into the header's paths
    "position": "uint16",
    "draft": "uint32",
    "committed": "uint32",
    "level": "uint8",  # K u
    "x_draft": "float32",
    "y_draft": "float32",
    "accept_coin": "float32",
    "skipped": "bool",
    "end": "bool",  # committed the end token
    "entropy": "float16",  # of x, nats
    "top1_probability": "float16",  # of x
    "second_probability": "float16",  # of x: of the token after the most probable one
    "quality_cosine": "float32",  # to the LLM's answer; of the whole answer, in each of its rows
    "quality_cosine_reference": "float32",  # to the prompt's reference answer, as above
    "task_passed": "float32",  # 1 where the answer's code does what was asked for, 0 where not; as above
    "tail": "float16",  # mass of x outside its top k
}


@dataclass(frozen=True)
class PromptEntry:
    """One prompt of a trace: evaluation prompts come first, then those that thresholds are fitted on."""

    __pydantic_config__ = STRICT
    id: str
    split: str
    category: str
    prompt: str
    reference: str
    tokens: Annotated[int, Field(ge=0, le=10_000_000)]  # as the models see it, chat header included
    checks: tuple[str, ...] = ()  # Python expressions that hold where an answer's code does what was asked for


@dataclass(frozen=True)
class PathEntry:
    """One recorded path: its name and the rule that decoded it."""

    __pydantic_config__ = STRICT
    name: str
    kind: str
    threshold: float | None = None
    skip_rate: float | None = None
    payload: str = ""

    @property
    def rule(self) -> DecodingRule:
        return DecodingRule(self.kind, self.threshold, self.skip_rate, self.payload)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TraceHeader:
    """What a trace says of itself.

    ``models`` says what slm and llm are, ``settings`` what was asked for, ``encoder`` what quality was measured with
    (None: it wasn't).
    """

    __pydantic_config__ = STRICT
    schema_version: int
    models: Mapping[str, Mapping[str, Any]]
    dtype: str
    temperature: Annotated[float, Field(ge=0)]  # 0: greedy
    uncertainty_samples: Annotated[int, Field(ge=1, le=250)]
    theta_law: str
    vocabulary_size: Annotated[int, Field(ge=2, le=10_000_000)]
    max_tokens: Annotated[int, Field(ge=1, le=65_536)]
    samples: Annotated[int, Field(ge=1, le=256)]
    seed: Annotated[int, Field(ge=0)]
    prompts_sha256: str
    packages: Mapping[str, str]
    how_to_make_again: str
    paths: tuple[PathEntry, ...]
    prompts: tuple[PromptEntry, ...]
    tail_ladder: tuple[int, ...]
    settings: Mapping[str, Any]
    encoder: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> "TraceHeader":
        """Build a header from its JSON. Raises ValueError where it isn't one: nothing in it is taken on trust."""
        try:
            header = TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        for role in ("slm", "llm"):
            model = header.models.get(role, {})
            dropped, parameters = model.get("dropped_layers", []), model.get("parameters", 0)
            if not (isinstance(model.get("name"), str) and isinstance(dropped, list) and isinstance(parameters, int)):
                raise ValueError(f"models: says nothing of the {role}, or not as it should")
        if header.encoder is not None and not isinstance(header.encoder.get("name"), str):
            raise ValueError("encoder: has no name")
        splits = [entry.split for entry in header.prompts]
        if splits != sorted(splits, key=SPLITS.index):
            raise ValueError("prompts: those of the evaluation come first")
        for what, names in (
            ("prompts", [entry.id for entry in header.prompts]),
            ("paths", [entry.name for entry in header.paths]),
            ("tail_ladder", header.tail_ladder),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: one is there twice")
        return header

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


def column_dtypes(tail_ladder: tuple[int, ...]) -> dict[str, np.dtype[Any]]:
    """Return every column's name and dtype, the tail spelt out as tail_<k>."""
    plain = {name: np.dtype(kind) for name, kind in COLUMNS.items() if name != "tail"}
    return plain | {f"tail_{k}": np.dtype(COLUMNS["tail"]) for k in tail_ladder}


def content_digest(header: bytes, columns: Columns) -> str:
    """Return the SHA-256 of a header's JSON and of each column's name, type and bytes, in the columns' order."""
    digest = hashlib.sha256(header)
    for name, values in columns.items():
        digest.update(f"{name}:{values.dtype.str}:".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def not_known(rows: int, names: Sequence[str] = QUALITY) -> Columns:
    """Return columns of which nothing is known: those of quality unless others are named."""
    return {name: np.full(rows, np.nan, dtype=COLUMNS[name]) for name in names}


def _later_than(version: int) -> list[str]:
    """Return the columns that a version of the schema hadn't yet."""
    return [name for since, names in SINCE.items() if since > version for name in names]


def in_file_order(header: TraceHeader, columns: Columns) -> Columns:
    """Return the columns as a trace file holds them: sorted by prompt, sample, path, position, and in its dtypes."""
    order = np.lexsort((columns["position"], columns["path"], columns["sample"], columns["prompt"]))
    dtypes = column_dtypes(header.tail_ladder)
    return {name: np.asarray(columns[name])[order].astype(dtype) for name, dtype in dtypes.items()}


def locate(name_or_path: str | Path) -> Path:
    """Return the file of a built-in trace or of a path. Raises TraceError, naming the built-in ones."""
    given = Path(name_or_path)
    built_in = BUILT_IN / f"{given.name}.parquet"
    try:
        if given.parent == Path(".") and not given.suffix and built_in.is_file():
            return built_in
        if given.is_file():
            return given
        if given.exists():
            raise TraceError(f"trace '{name_or_path}': is a folder, a pipe or a device, not a file")
    except OSError as problem:  # a name too long for a file, or a folder that can't be entered
        raise TraceError(f"trace '{name_or_path}': can't be read ({problem})") from None
    names = sorted(file.stem for file in BUILT_IN.glob("*.parquet"))
    hint = did_you_mean(str(name_or_path), names)
    raise TraceError(f"trace '{name_or_path}': no such file, and not a built-in trace ({', '.join(names)}){hint}")


def write_trace_file(out: Path, header: TraceHeader, columns: Columns) -> None:
    """Write a trace so that it is whole or not there: to a temporary name beside it, then renamed.

    ``columns`` holds the arrays of `COLUMNS` (the tail as tail_<k>), one entry per token, in any order of
    answers.
    """
    ordered = in_file_order(header, columns)
    header_json = header.to_json().encode()
    table = pa.table({name: pa.array(values) for name, values in ordered.items()})
    metadata = {HEADER_KEY: header_json, DIGEST_KEY: content_digest(header_json, ordered)}
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    os.close(handle)
    try:
        # Many answers begin alike: long pages let the compression see that.
        with pq.ParquetWriter(
            temporary,
            table.schema,
            compression="zstd",
            compression_level=22,
            use_dictionary=["prompt", "sample", "path"],
            use_byte_stream_split=["x_draft", "y_draft", "top1_probability", "second_probability"],
            data_page_size=1 << 26,
            write_statistics=False,
            store_schema=False,
        ) as writer:
            writer.write_table(table, row_group_size=max(len(table), 1))
            writer.add_key_value_metadata(metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_trace_header(path: Path) -> TraceHeader:
    """Return the header of a trace file, its columns unread. Raises TraceError as `read_trace_file` does."""
    with _opened(path) as file:
        return _announced(path, file)[0]


def read_trace_file(path: Path) -> tuple[TraceHeader, Columns, str]:
    """Return header, columns and digest of a trace file.

    One of an earlier version comes as one of this: with NaN for what it hadn't, and tail masses rounded up.
    Raises TraceError, in one sentence with the file's name, if it is truncated, damaged, foreign, or of
    another schema version.
    """
    with _opened(path) as file:
        header, header_json, digest = _announced(path, file)
        table = file.read(use_threads=False)
    if any(column.null_count for column in table.columns):
        raise TraceError(f"trace {path}: a column has empty cells")
    names = column_dtypes(header.tail_ladder)
    version = header.schema_version
    columns = {name: table[name].to_numpy() for name in names if name in table.column_names}
    if content_digest(header_json, columns) != digest:
        raise TraceError(f"trace {path}: damaged, its contents don't match the checksum in its header")
    header = replace(header, schema_version=SCHEMA_VERSION)
    columns |= not_known(len(columns["prompt"]), _later_than(version))
    if version < BOUNDS_SINCE:  # the next 16-bit number is a bound of what was rounded to the nearest
        for name in (f"tail_{k}" for k in header.tail_ladder):
            above = np.nextafter(columns[name], np.float16(np.inf)).astype(np.float32)
            columns[name] = rounded_up(above, TAIL_BITS).astype(np.float16)
    columns = {name: columns[name] for name in names}
    check_ranges(path, header, columns)
    return header, columns, digest


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a trace file; what goes wrong while it is read becomes a TraceError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except TraceError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise TraceError(f"trace {path}: not a whole parquet file (truncated or damaged?): {reason}") from None


def _announced(path: Path, file: pq.ParquetFile) -> tuple[TraceHeader, bytes, str]:
    """Return the header of a trace file, also as it stands there, and its digest, before any column is read.

    Raises TraceError unless it is a header of ours and the file's footer announces its columns, and no more rows than
    its answers can have: a few bytes may stand for more than fits into memory.
    """
    schema, metadata = file.schema_arrow, file.schema_arrow.metadata or {}
    if HEADER_KEY not in metadata or DIGEST_KEY not in metadata:
        raise TraceError(f"trace {path}: a parquet file, but not a trace of this package (it has no trace header)")
    try:
        version = json.loads(metadata[HEADER_KEY])["schema_version"]
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise TraceError(
                f"trace {path}: schema version {version}, but this package reads 1 to {SCHEMA_VERSION}; "
                "take a later version of it, or record the trace again with `uhlm-sim record`"
            )
        header = TraceHeader.from_json(metadata[HEADER_KEY].decode())
        for entry in header.paths:
            entry.rule  # noqa: B018 - a header with an impossible rule is refused here, not in the middle of a run
        expected = column_dtypes(header.tail_ladder)
        expected = {name: dtype for name, dtype in expected.items() if name not in _later_than(version)}
        types = {name: pa.from_numpy_dtype(dtype) for name, dtype in expected.items()}
        types_there = dict(zip(schema.names, schema.types, strict=True))
        if types_there != types or len(schema.names) != len(types_there):
            wrong = sorted(name for name in {*types_there, *types} if types_there.get(name) != types.get(name))
            raise ValueError(f"columns {wrong} are missing, unknown or of another type")
        answers = len(header.paths) * len(header.prompts) * 256  # samples of a calibration prompt: a byte
        if file.metadata.num_rows > min(answers * header.max_tokens, MOST_ROWS):
            raise ValueError(f"{file.metadata.num_rows} rows are more than its answers can have")
    except TraceError:
        raise
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise TraceError(f"trace {path}: a damaged header: {problem}") from None
    return header, metadata[HEADER_KEY], metadata[DIGEST_KEY].decode("ascii", "replace")


def check_ranges(path: Path, header: TraceHeader, columns: Columns) -> None:
    """Raise TraceError, naming the column, where a value can't be: the work of other software or a bug."""
    drafted = columns["level"] != UNKNOWN_LEVEL
    x, y = columns["x_draft"], columns["y_draft"]
    kinds = np.array([entry.kind for entry in header.paths] or [""])
    sound = {
        "prompt": columns["prompt"] < len(header.prompts),
        "path": columns["path"] < len(header.paths),
        "position": columns["position"] < header.max_tokens,
        "draft": columns["draft"] < header.vocabulary_size,
        "committed": columns["committed"] < header.vocabulary_size,
        "level": (columns["level"] <= header.uncertainty_samples) | ~drafted,
        "x_draft": ((x > 0) & (x <= 1)) | ~drafted,
        "y_draft": (y >= 0) & (y <= 1),
        "accept_coin": (columns["accept_coin"] >= 0) & (columns["accept_coin"] < 1),
        **{name: ~(np.abs(columns[name]) > 1) for name in QUALITY},  # NaN: not known
    }
    for name, good in sound.items():
        if not good.all():
            row = int(np.argmin(good))
            raise TraceError(f"trace {path}: {name} = {columns[name][row]} in row {row} is out of range")
    if not np.array_equal(kinds[columns["path"]] != "llm", drafted):
        raise TraceError(f"trace {path}: level is out of range: only paths of the rule llm have no uncertainty")
