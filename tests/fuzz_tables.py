"""Damage tables of SNR, requests, service times and prompts, and see that each is read right or refused in words.

    python tests/fuzz_tables.py --count 20000 --seed 1

An independent oracle, the standard decimals on lines and fields that are split by hand or by pandas, says what a
damaged file still holds. A reader may refuse it with one error of ours; what it accepts must be that, row by row. A
traceback, a warning, a shifted row or a wrong number is a finding: it is shown and the exit code is 1.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from decimal import Decimal, InvalidOperation
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from channel_models import RecordingFormat, read_recording
from uhlm_sim.cell.gpus.service import service_times
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.request_file import read_requests
from uhlm_sim.errors import InputError
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tokens.prompts import read_prompts

NASTY = [
    "\0",
    '"',
    ",",
    ";",
    "\n",
    "\r",
    "\n\n",
    " ",
    "\t",
    "_",
    ".",
    "-",
    "e",
    "\u0663",
    "\u2028",
    "\u00a0",
    "nan",
    "inf",
]
NASTY += ["1_000", "1,5", "#", "{", "}", "null", "0x1", "\ufeff", "é", "9" * 400]
Rows = list[list[str]]


def original(kind: str, chance: random.Random) -> Rows:
    """Return a table as it should be: names, and rows of text."""
    size = chance.randint(1, 8)
    if kind == "snr":
        columns = chance.choice([1, 1, 3])
        header = [["SNR"], ["near", "mid", "far"]][columns == 3]
        rows = [[f"{chance.uniform(-20, 40):.{chance.randint(0, 4)}f}" for _ in header] for _ in range(size)]
        return rows if chance.random() < 0.4 else [header, *rows]
    if kind == "timed":
        times = sorted(chance.sample(range(1, 100), size))
        return [["t", "rsrp", "SNR"], *([f"{at / 10}", "-90", f"{chance.uniform(-20, 40):.2f}"] for at in times)]
    if kind == "service":
        tokens = sorted(chance.sample(range(1, 500), size))
        return [["new_tokens", "seconds"], *([str(n), f"{0.01 + n / 1000:.4f}"] for n in tokens)]
    header = ["timestamp", "model", "input_length", "output_length", "device"]
    counts = (str(chance.randint(1, 999)) for _ in range(2 * size))
    devices = [str(chance.randint(0, 9)) if chance.random() < 0.9 else chance.choice("ab") for _ in range(size)]
    return [header, *([f"{0.25 * n}", "m", next(counts), next(counts), devices[n]] for n in range(size))]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the bytes after a few accidents."""
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        lines = content.split(b"\n")
        line, at = chance.randrange(len(lines)), chance.randrange(len(content) + 1)
        match chance.randrange(11):
            case 0:
                content = content[:at] + chance.choice(NASTY).encode() + content[at:]
            case 1:
                content = content[:at] + content[at + chance.randint(1, 4) :]
            case 2:
                content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
            case 3:
                content = content[:at]
            case 4:
                content = b"\n".join([*lines[:line], *lines[line + 1 :]])
            case 5:
                content = b"\n".join([*lines[:line], chance.choice([b"", lines[0], b" "]), *lines[line:]])
            case 6:
                content = b"\n".join([*lines[:line], chance.choice([b"", b",", b",,,,"]), *lines[line + 1 :]])
            case 7:
                content = content.replace(b".", b",") if chance.random() < 0.5 else content.replace(b",", b";")
            case 8:
                content = b"\xef\xbb\xbf" + content
            case 9:
                content = content.replace(b"\n", b"\r\n")
            case 10 if chance.random() < 0.2:
                content = content.decode("latin-1").encode(chance.choice(["utf-16", "utf-16-le", "utf-32"]))
    return content


def fields_of(content: bytes) -> Rows | None:
    """Return what the oracle splits a file into, or None where it can't be text with rows."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        return None
    if '"' not in text:
        return [line.split(",") for line in re.sub(r"\r\n?", "\n", text).removesuffix("\n").split("\n")]
    try:
        table = pd.read_csv(StringIO(text), header=None, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except Exception:  # whatever pandas finds wrong with quotes
        return None
    return [[str(field) for field in row] for row in table.to_numpy()]


def number(field: str) -> float:
    """Return a decimal number. Raises ValueError for what is none, or written otherwise."""
    if not set(field.lower()) <= set("0123456789+-.e \tinfaty"):
        raise ValueError(field)
    try:
        return float(Decimal(field.strip(" \t")))
    except (InvalidOperation, ValueError):
        raise ValueError(field) from None


def column(rows: Rows, name: int | str) -> list[float]:
    """Return the numbers of a column by its place, or by its name in the first row."""
    header, *below = rows
    at = name if isinstance(name, int) else [field.strip() for field in header].index(name)
    if any(len(row) != len(header) for row in rows):
        raise ValueError("ragged")
    try:
        return [number(row[at]) for row in ([header] if isinstance(name, int) and is_number(header[0]) else []) + below]
    except ValueError:
        raise ValueError("no number") from None


def is_number(field: str) -> bool:
    try:
        number(field)
    except ValueError:
        return False
    return True


def read(kind: str, file: Path) -> Any:
    """Return what the program reads. Raises InputError or ValueError."""
    if kind == "snr":
        return np.asarray(10.0 * np.log10(read_recording(str(file))), dtype=float)
    if kind == "timed":
        snr = read_recording(str(file), RecordingFormat(column="SNR", time_column="t", block_s=0.1))
        return np.asarray(10.0 * np.log10(snr), dtype=float)
    if kind == "service":
        values = {"name": "s", "tokens": {"path": "x"}, "policy": [{"kind": "hlm"}]}
        values["base_station"] = {"service": {"kind": "table", "path": str(file)}}
        scenario = parse_scenario(values)
        return service_times(scenario, 0, find_names(scenario)["base_station.service.kind"])
    return read_requests(str(file))


def agree(kind: str, found: Any, rows: Rows) -> bool:
    """Say whether what was read is what the oracle finds in the rows."""
    try:
        if kind == "snr":
            return np.allclose(found.T, [column(rows, n) for n in range(len(rows[0]))])
        if kind == "timed":
            times, snr = column(rows, "t"), column(rows, "SNR")
            edges = times[0] + 0.1 * np.arange(len(found)) + 1e-6
            return np.allclose(found[:, 0], [snr[max(n for n, t in enumerate(times) if t <= edge)] for edge in edges])
        if kind == "service":
            pairs = zip(column(rows, "new_tokens"), column(rows, "seconds"), strict=True)
            return all(found(n) == seconds for n, seconds in pairs)
        rows[0] = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in rows[0]]
        arrived, prompts = column(rows, "timestamp"), column(rows, "inputlength")
        outputs = column(rows, "outputlength")
    except (ValueError, IndexError):
        return False
    order = sorted(range(len(arrived)), key=lambda n: arrived[n])
    header = rows[0]
    if "device" not in header:
        return found.device is None and found.arrived_s.tolist() == [arrived[n] for n in order]
    named = [rows[n + 1][header.index("device")].strip() for n in order]
    firsts = list(dict.fromkeys(named))
    if all(map(is_number, named)):
        devices = [int(number(name)) for name in named]
    else:
        devices = [firsts.index(name) for name in named]
    return (
        found.arrived_s.tolist() == [arrived[n] for n in order]
        and found.prompt_tokens.tolist() == [prompts[n] for n in order]
        and found.output_tokens.tolist() == [outputs[n] for n in order]
        and (found.device.tolist() == devices if found.device is not None else not any(named))
    )


def case(chance: random.Random, folder: Path) -> str:
    """Play one case and return how it ended. Raises AssertionError for a finding."""
    kind = chance.choice(["snr", "timed", "service", "requests", "requests", "json", "prompts"])
    if kind == "prompts":
        lines = [{"id": f"p{n}", "split": "evaluation", "prompt": f"what is {n}?"} for n in range(chance.randint(1, 6))]
        whole = "".join(json.dumps(line) + "\n" for line in lines)
    else:
        rows = original("requests" if kind == "json" else kind, chance)
        whole = "".join(",".join(row) + "\n" for row in rows)
        if kind == "json":
            whole = "".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])
    content = damaged(whole.encode(), chance)
    file = folder / ("table.jsonl" if kind in ("json", "prompts") else "table.csv")
    file.unlink(missing_ok=True)  # a new one, so that no reader takes it for one that it has read
    file.write_bytes(content)
    harmless = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n") == whole.encode()
    try:
        found = read_prompts(file) if kind == "prompts" else read(kind, file)
    except (InputError, ValueError) as error:
        told = str(error)
        if harmless and "all must be names" not in told:  # numbers and names of devices, side by side
            raise AssertionError("refused, though nothing is wrong") from error
        if str(file) not in told or "\n" in told:
            raise AssertionError("not one message that names the file") from error
        return f"{kind}: refused"
    if kind == "prompts":
        intact = [json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
        assert [each.prompt for each in found] == [line["prompt"] for line in intact], "prompts differ"
    else:
        known = fields_of(content) if kind != "json" else values_of(content)
        assert known is not None, "the oracle finds no table"
        assert agree(kind, found, known), f"read as {found}"
    return f"{kind}: read right"


def values_of(content: bytes) -> Rows | None:
    """Return the keys and values of JSON lines as the oracle reads them, or None where they can't be."""
    try:
        lines = [json.loads(line) for line in content.decode("utf-8-sig").removesuffix("\n").split("\n")]
        rows = [[str(line[name]) for name in lines[0]] for line in lines]
    except (ValueError, KeyError):
        return None
    return [list(lines[0]), *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat one case")
    args = parser.parse_args()
    began_s, counts = time.perf_counter(), Counter[str]()
    warnings.simplefilter("error")
    np.seterr(divide="ignore")  # the oracle takes logarithms of no signal
    with tempfile.TemporaryDirectory() as folder:
        for n in range(args.count) if args.only is None else [args.only]:
            try:
                counts[case(random.Random(f"{args.seed} {n}"), Path(folder))] += 1
            except Exception:
                traceback.print_exc()
                print(*(f"{file.name}: {file.read_bytes()!r}" for file in Path(folder).iterdir()), sep="\n")
                print(f"FOUND in case {n}: python tests/fuzz_tables.py --seed {args.seed} --only {n}")
                sys.exit(1)
    for ended, count in sorted(counts.items()):
        print(f"{count:>7,}  {ended}")
    print(f"{counts.total():,} cases, none read wrong (seed {args.seed})")
    print(f"{time.perf_counter() - began_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
