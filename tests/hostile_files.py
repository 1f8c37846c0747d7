"""Hostile files: traces and run folders that are damaged, foreign or forged, and what becomes of them."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import POLICIES, FoundError, damaged, odd, one_message

from uhlm_sim.analysis.report.page import write_report
from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.timeline import write_timeline
from uhlm_sim.errors import InputError, TraceError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import DIGEST_KEY, HEADER_KEY, content_digest

# -- traces ---------------------------------------------------------------------------------------------------------


def play_damaged(whole: bytes, reference: Trace, chance: random.Random, folder: Path) -> str:
    """Damage a trace's bytes and read it: refused, or the very same trace."""
    file = folder / "damaged.parquet"
    data = whole
    for _ in range(chance.choice([1, 1, 2])):
        data = damaged(data, chance)
    file.write_bytes(data)
    try:
        read = Trace.read(file)
    except TraceError as error:
        one_message(error)
        return "damaged: refused"
    same = read.digest == reference.digest and read.header == reference.header
    if not same or any(not np.array_equal(read.columns[k], v, equal_nan=True) for k, v in reference.columns.items()):
        raise FoundError("a damaged trace was read as another one")
    return "damaged: the same"


def play_forged(whole: Path, chance: random.Random, folder: Path) -> str:
    """Forge a trace, its checksum right again, and run on it: refused, or as good as any."""
    file = forge(whole, chance, folder / "forged.parquet")
    values = {"name": "forged", "duration_s": 4.0, "warmup_s": 0.0, "replications": 1, "policy": POLICIES[:4]}
    values |= {"tokens": {"path": str(file)}, "traffic": {"devices": 2, "think_time_s": 0.2, "max_tokens": 8}}
    try:
        if Trace.read(file).header.max_tokens < 8:
            values["traffic"]["max_tokens"] = 1
        results = run(parse_scenario(values), jobs=1)
    except InputError as error:
        one_message(error)
        return "forged: refused"
    if results.failed:
        raise FoundError(f"a forged trace broke a run: {results.failed[0]['reason']}")
    return "forged: ran"


def forge(whole: Path, chance: random.Random, out: Path) -> Path:
    """Write a copy of a trace with something of its header or its columns changed, and the checksum made anew."""
    table = pq.read_table(whole)
    header = json.loads(table.schema.metadata[HEADER_KEY])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    for _ in range(chance.choice([1, 1, 2])):
        if chance.random() < 0.6:
            edit(header, chance)
        else:
            columns = recolumn(columns, chance)
    told = json.dumps(header, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    metadata = {HEADER_KEY: told, DIGEST_KEY: content_digest(told, columns).encode()}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), out)
    return out


def edit(values: Any, chance: random.Random) -> None:
    """Change one value somewhere in a tree of JSON: to something odd, to nothing, or to what stands elsewhere."""
    table: Any = values
    while True:
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(table[key], dict | list) and chance.random() < 0.8:
            table = table[key]
            continue
        kind = chance.randrange(4)
        if kind == 0:
            del table[key]
        elif kind == 1:
            table[key] = chance.choice([None, [], {}, -1, 0, 10**9, 1e308, "", "x", True, float("nan")])
        elif kind == 2 and isinstance(table, list):
            table.append(table[key])
        else:
            table[key] = odd(chance)
        return


def recolumn(columns: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return the columns with one changed: its values, its type, its order, its length or its name."""
    columns, name = dict(columns), chance.choice(list(columns))
    values = columns[name]
    rng = np.random.default_rng(chance.randrange(2**32))
    kind = chance.randrange(7)
    if kind == 0:
        columns[name] = rng.permutation(values)
    elif kind == 1:
        with np.errstate(invalid="ignore"):
            columns[name] = values.astype(chance.choice(["float64", "int64", "uint8", "bool"]))
    elif kind == 2:
        columns[name] = np.full_like(values, chance.choice([0, 1, 255 if values.dtype.kind == "u" else np.inf]))
    elif kind == 3:
        keep = rng.random(len(values)) < chance.random()
        columns = {each: column[keep] for each, column in columns.items()}
    elif kind == 4:
        order = rng.permutation(len(values))
        columns = {each: column[order] for each, column in columns.items()}
    elif kind == 5:
        del columns[name]
    else:
        columns["more" + name] = values
    return columns


# -- run folders ----------------------------------------------------------------------------------------------------

TABLES = ("summary", "replications", "requests", "stations", "tokens")


def play_folder(whole: Path, scenario: Scenario, other: Path, chance: random.Random, folder: Path) -> str:
    """Spoil a file or two of a finished run and use it: refused, or the very same run."""
    spoiled = folder / "spoiled"
    shutil.rmtree(spoiled, ignore_errors=True)
    shutil.copytree(whole, spoiled)
    files = sorted(file.name for file in whole.iterdir() if file.is_file())
    for name in chance.sample(files, chance.choice([1, 1, 2])):
        spoil(spoiled / name, other / name, chance)
    told = []
    try:
        read, was = Results.read(spoiled), Results.read(whole)
        told.append("read")
        for name in TABLES:
            if name != "tokens" or read.tokens is not None:
                one, two = getattr(read, name), getattr(was, name)
                if not one.equals(two):
                    raise FoundError(f"{name} of a spoiled folder was read as something else")
        if read.scenario != was.scenario or read.provenance != was.provenance:
            raise FoundError("scenario or provenance of a spoiled folder was read as something else")
        if chance.random() < 0.02:
            write_report(read, [], spoiled / "again.html")
    except InputError as error:
        one_message(error)
        told.append("refused")
    for use in (
        lambda: write_timeline(spoiled, folder / "timeline.json"),
        lambda: run(scenario, out=spoiled, jobs=1, resume=True),
    ):
        if not (spoiled / "summary.csv").exists() and told[-1] != "timeline":
            continue  # that would run it again
        try:
            use()
        except InputError as error:
            one_message(error)
        except IsADirectoryError:
            told.append("a folder in a file's place")  # as a full disk: the command line says so and exits with 1
    return f"folder: {told[0]}"


def spoil(file: Path, other: Path, chance: random.Random) -> None:
    """Damage, empty, replace or remove a file."""
    kind = chance.randrange(6)
    whole = file.read_bytes()
    file.unlink()
    if kind == 0:
        file.mkdir()
    elif kind == 1 and other.is_file():
        shutil.copy(other, file)
    elif kind == 2:
        file.write_bytes(chance.choice([b"", b"\x00", b"{}", b"[]", b"null", b"a,b\n1,2\n", whole[::-1]]))
    elif kind < 5:
        file.write_bytes(damaged(whole, chance))


def play_parts(unbroken: Path, parts: dict[str, bytes], scenario: Scenario, chance: random.Random, folder: Path) -> str:
    """Spoil what an interrupted run left and resume it: the same bytes as of the unbroken run, or refused."""
    out = folder / "resumed"
    shutil.rmtree(out, ignore_errors=True)
    (out / PARTS).mkdir(parents=True)
    shutil.copy(unbroken / "scenario.resolved.toml", out)
    for name, part in parts.items():
        (out / PARTS / name).write_bytes(part)
    for name in chance.sample(sorted(parts), chance.choice([1, 2])):
        file = out / PARTS / name
        spoil(file, out / PARTS / chance.choice(sorted(parts)), chance)
    try:
        run(scenario, out=out, jobs=1, resume=True)
    except IsADirectoryError:
        return "parts: a folder in a file's place"
    for name in (
        "summary.csv",
        "replications.csv",
        "stations.csv",
        "requests.parquet",
        "rounds.parquet",
        "tokens.parquet",
    ):
        if (out / name).read_bytes() != (unbroken / name).read_bytes():
            raise FoundError(f"{name} of a resumed run is another one")
    return "parts: the same"
