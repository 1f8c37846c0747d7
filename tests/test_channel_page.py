"""The page of the channels names what there is; its scenarios read and its code runs."""

import re
import tomllib
from pathlib import Path

import numpy as np
from worlds import agrees, cell

from channel_models import CHANNELS, spectral_efficiency
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Geometry

PAGE = (Path(__file__).parent.parent / "docs" / "channels.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_channel_has_its_row_with_its_parameters_and_their_defaults():
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE.split("\n## ")[0], flags=re.MULTILINE))
    assert list(rows) == list(CHANNELS)
    assert "path" in rows.pop("trace")  # whose other parameters have a table of their own
    for name, told in rows.items():
        own = CHANNELS[name].__kwdefaults__ or {}
        shown = {key: float(value) for key, value in re.findall(r"`(\w+)`(?: m)? \(([\d.e]+)\)", told)}
        assert shown == {key: value for key, value in own.items() if key != "device"}


def test_every_table_of_the_page_is_a_channel():
    for block in blocks("toml"):
        channel = cell(**tomllib.loads(block)).channel
        assert channel.kind in CHANNELS
    assert set(tomllib.loads(block)["channel"]["geometry"]) < set(Geometry.model_fields)


def test_the_notebook_runs_without_the_simulator(capsys):
    code = blocks("python")[0]
    assert "uhlm" not in code
    names = {}
    exec(code, names)
    said = capsys.readouterr().out
    assert f"{np.median(names['snr_db']):.1f} dB" in said
    assert (
        names["rates"].tolist()
        == spectral_efficiency(
            10 ** (names["snr_db"][0] / 10) * names["gains"], min_snr=0.1, max_spectral_efficiency=7.4
        ).tolist()
    )


def test_the_channel_of_ones_own_has_mean_gain_one():
    names = {}
    exec(blocks("python")[1], names)
    means = [next(names["shadowed"](stream(1, "own", i), 20, block_s=0.1)).mean() for i in range(20_000)]
    assert agrees(1.0, means)
