"""The pages make a site without a warning: each is in it, and every link and anchor leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def build(folder: Path, target: Path, builder: str = "html") -> str:
    """Build a folder of pages, warnings as errors; return what Sphinx complains of."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder, folder, target]
    # Elsewhere than in the repository, conf.py finds the package by this path where it isn't installed.
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths})
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_every_page_is_in_the_site_and_every_link_resolves(tmp_path: Path) -> None:
    assert build(DOCS, tmp_path) == ""
    pages = {file.relative_to(DOCS).with_suffix("") for file in DOCS.rglob("*.md")}
    texts = {page: (tmp_path / page).with_suffix(".html").read_text(encoding="utf-8") for page in pages}
    assert "Run it" in texts[Path("index")], "the first page is the README"
    for page, text in texts.items():
        links = re.findall(r'(?:href|src)="([^"#?:]+)["#?]', text)
        assert [link for link in links if not (tmp_path / page.parent / link).exists()] == [], page
        assert f'{page.name}.html">' in texts[Path("index")] or page == Path("index"), "the first page leads to it"


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path) -> None:
    pages, nowhere = tmp_path / "pages", ("gone.md", "there.md#no-such-heading", "../gone.toml")
    pages.mkdir()
    (pages / "conf.py").write_text((DOCS / "conf.py").read_text(encoding="utf-8"), encoding="utf-8")
    (pages / "there.md").write_text("# There\n", encoding="utf-8")
    links = " ".join(f"[a link]({link})" for link in nowhere)
    (pages / "index.md").write_text(f"# Index\n\n{links}\n\n```{{toctree}}\nthere\n```\n", encoding="utf-8")
    assert build(pages, tmp_path / "site", "dummy").count("xref_missing") == len(nowhere)


def test_the_readme_has_the_command() -> None:
    command = "python -m sphinx -W --keep-going -b html docs results/site"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in (DOCS / "conf.py").read_text(encoding="utf-8")
