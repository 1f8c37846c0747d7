"""Run the built-in scenarios as they are shipped, and make docs/gallery.md of what each of them shows.

python docs/gallery.py [NAME ...]

Without names all, which takes about an hour on two cores; with names only these are run, and the others stay as they
are. Run folders go to results/gallery: a finished one is taken as it is, and a killed one goes on.
"""

import re
import sys
from pathlib import Path

from uhlm_sim import Results, load, run
from uhlm_sim.analysis.figures.catalogue import drawings
from uhlm_sim.analysis.report.sentences import first_answers, further_answers
from uhlm_sim.names import scenario_folder

DOCS = Path(__file__).parent
RUNS = DOCS.parent / "results" / "gallery"
FIRST = """# Gallery

What built-in scenarios ask, the first figure of each one's report, and answers that its report gives. Every
entry is made by the command above its figure, with nothing changed; the report has the other figures, all intervals
and the assumptions. `python docs/gallery.py` makes this page.

"""
SENTENCES = 5


def entry(name: str, results: Results, pictures: Path) -> str:
    """Return a scenario's part of the page, and draw its picture into the folder `pictures`."""
    first = drawings(results)[0]
    first.figure.savefig(pictures / f"{name}.png", dpi=120)
    answers = [*first_answers(results)[:1], *further_answers(results)][:SENTENCES]
    scenario = results.scenario
    tokens = results.source or f"recorded, `{Path(scenario['tokens']['path']).stem}`"
    lines = [
        f"## {name}",
        scenario["description"],
        f"```sh\nuhlm-sim run {name}\n```",
        f"![{first.title}](gallery/{name}.png)\n\n*{first.caption}*",
        "\n".join(f"- {answer}" for answer in answers),
        f"*Tokens: {tokens}. [The scenario](../scenarios/{name}.toml).*",
    ]
    return "".join(f"{line}\n\n" for line in lines)


def entries(page: str) -> dict[str, str]:
    """Return a page's parts by the scenarios' names."""
    return {text.split("\n", 1)[0]: f"## {text}" for text in re.split(r"^## ", page, flags=re.MULTILINE)[1:]}


def main(names: list[str]) -> None:
    page, pictures = DOCS / "gallery.md", DOCS / "gallery"
    pictures.mkdir(exist_ok=True)
    parts = entries(page.read_text(encoding="utf-8")) if page.exists() else {}
    for name in names or sorted(file.stem for file in scenario_folder().glob("*.toml")):
        folder = RUNS / name
        parts[name] = entry(name, run(load(name), out=folder, resume=folder.exists()), pictures)
        page.write_text(FIRST + "".join(parts[name] for name in sorted(parts)).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
