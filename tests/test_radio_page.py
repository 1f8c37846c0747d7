"""The page of the radio names the allocators and keys that there are, and its scenarios read."""

import re
import tomllib
from pathlib import Path

from worlds import cell

from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.setup import LINKS
from uhlm_sim.scenario import Link

PAGE = (Path(__file__).parent.parent / "docs" / "radio.md").read_text(encoding="utf-8")


def test_every_allocator_has_its_row_and_every_link_is_named():
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE)) == sorted(ALLOCATORS)
    assert all(f'"{name}"' in PAGE for name in LINKS)
    block = tomllib.loads(re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0])
    shown = {"outer_loop_step_db", *block["uplink"]["link"]}
    assert shown == set(Link.model_fields)
    assert "`outer_loop_step_db`" in PAGE


def test_every_table_of_the_page_reads():
    tables = [
        cell(**tomllib.loads(block))
        for block in re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    ]
    assert [(table.uplink.link.kind, table.downlink.kind) for table in tables] == [
        ("adaptive", "constant"),
        ("shannon", "shared"),
    ]


def test_every_file_that_the_page_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert all((Path(__file__).parent.parent / "docs" / link).exists() for link in links)
