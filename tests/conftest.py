"""Fixtures that several test files share."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from matplotlib.figure import Figure
from product_form import closed_cell  # noqa: F401  a fixture of several files
from tiny_models import make_model
from traces import write_trace

# Models of a few thousand weights: threads of torch would spend ten times the work on waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SCENARIO = """\
name = "tiny"
replications = 3
duration_s = 12.0
warmup_s = 2.0
traffic = {{ devices = 4, think_time_s = 1.0, max_tokens = 12 }}
tokens = {{ kind = "trace", path = "{trace}" }}
[[policy]]
kind = "hlm"
[[policy]]
kind = "u-hlm"
threshold = 0.43
"""


# What a run folder holds of the simulations.
TABLES = ("summary.csv", "replications.csv", "stations.csv", "requests.parquet", "rounds.parquet", "tokens.parquet")


def assert_same_tables(run_folder: Path, other: Path) -> None:
    """Assert that two run folders hold the same bytes."""
    for name in TABLES:
        assert (run_folder / name).read_bytes() == (other / name).read_bytes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each test file to one worker, so that what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


BLANK_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
RENDER = Figure.savefig


def save_blank(_figure: Figure, file: Path | str | IO[bytes], *, format: str = "", **_how: Any) -> None:
    """Save a picture of one pixel, or an empty PDF or SVG, in place of a figure."""
    is_path = isinstance(file, Path | str)
    kind = format or (Path(file).suffix[1:] if is_path else "png")  # type: ignore[arg-type]
    blank = {"png": base64.b64decode(BLANK_PNG), "svg": b"<svg/>"}.get(kind, b"%PDF-1.4")
    Path(file).write_bytes(blank) if is_path else file.write(blank)  # type: ignore[arg-type, union-attr]


@pytest.fixture(scope="session", autouse=True)
def blank_pictures() -> Iterator[None]:
    """Draw figures, but save a blank for each: rendering them for every run would be a third of the suite's time.

    Where the picture itself counts, `rendering` and `rendered` bring it back.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_blank)
        yield


@contextmanager
def rendering() -> Iterator[None]:
    """Save figures as they are inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", RENDER)
        yield


@pytest.fixture
def rendered() -> Iterator[None]:
    """Save figures as they are."""
    with rendering():
        yield


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up trace."""
    return write_trace(tmp_path_factory.mktemp("trace") / "made-up.parquet")


@pytest.fixture
def scenario_file(tmp_path: Path, trace_file: Path) -> Path:
    """A small scenario that replays it."""
    file = tmp_path / "tiny.toml"
    file.write_text(SCENARIO.format(trace=trace_file), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "large", seed=1), make_model(folder / "small", seed=2, layers=2)
