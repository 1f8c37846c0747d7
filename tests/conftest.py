"""Fixtures that several test files share."""

from pathlib import Path

import pytest
from tiny_models import make_model
from traces import write_trace

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
