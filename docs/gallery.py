"""Run the built-in scenarios as they are shipped, and make docs/gallery.md of what each of them shows.

python docs/gallery.py [NAME ...]

Without names all, which takes about an hour on two cores; with names only these are run, and the others stay as they
are. Run folders go to results/gallery: a finished one is taken as it is, and a killed one goes on.
"""

import re
import sys
from pathlib import Path

from uhlm_sim import Results, Scenario, load, run
from uhlm_sim.analysis.figures.catalogue import drawings
from uhlm_sim.analysis.figures.uncertainty_law import uncertainty_figure
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.report.sentences import first_answers, further_answers
from uhlm_sim.analysis.report.sentences_of_choices import of_choices
from uhlm_sim.analysis.report.sentences_of_classes import of_classes, of_near_and_far
from uhlm_sim.names import scenario_folder
from uhlm_sim.tokens.calibration import calibrate_trace, gate_risks
from uhlm_sim.tokens.calibration_text import calibration_text
from uhlm_sim.tokens.trace import Trace

DOCS = Path(__file__).parent
RUNS = DOCS.parent / "results" / "gallery"
FIRST = """# Gallery

What built-in scenarios ask, the first figure of each one's report, and up to six of the sentences with which its report
answers. Every entry is made by the command above its figure, with nothing changed; the report has the other sentences
and figures, all intervals, what was cut short, and the assumptions. `python docs/gallery.py` makes this page.

"""
SENTENCES = 6


def entry(name: str, results: Results, pictures: Path) -> str:
    """Return a scenario's part of the page, and draw its picture into the folder `pictures`."""
    first = drawings(results)[0]
    first.figure.savefig(pictures / f"{name}.png", dpi=120)
    points = Points.of(results)
    further = further_answers(results)
    asked = [*of_near_and_far(results, points), *of_classes(results, points), *of_choices(results, points)]
    asked += [answer for answer in further if answer.partition(": ")[0] not in results.policies]
    answers = list(dict.fromkeys([*first_answers(results)[:2], *asked[:3], *further]))[:SENTENCES]
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


def pair_entry(name: str, scenario: Scenario, pictures: Path) -> str:
    """Return the part of a scenario that records a model pair, from the shipped trace: to record it takes hours."""
    shipped = Path(scenario.tokens.path).stem
    trace = Trace.read(shipped)
    law, risks = calibrate_trace(trace), gate_risks(trace)
    thresholds = {"risk-averse": law.risk_averse, "risk-prone": law.risk_prone, "paper": 0.43}
    uncertainty_figure(law.bins, law.a, law.b, thresholds).savefig(pictures / f"{name}.png", dpi=120)
    text = calibration_text(shipped, trace, law, risks)
    head, answers = text.partition("\n\nThe law, bin by bin")[0], text[text.index("What a gate risks:") :]
    lines = [
        f"## {name}",
        scenario.description,
        f"```sh\nuhlm-sim calibrate {shipped}\n```",
        f"![The law of the pair](gallery/{name}.png)\n\n*The probability that the LLM would refuse a draft against the "
        "phone's uncertainty: fitted on calibration prompts, judged on others. A marker's area grows with its tokens.*",
        f"```text\n{head}\n\n{answers}\n```",
        f"*Tokens: recorded, `{shipped}`. [The scenario](../scenarios/{name}.toml), which records them.*",
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
        scenario, folder = load(name), RUNS / name
        parts[name] = (
            pair_entry(name, scenario, pictures)
            if scenario.tokens.kind == "models"
            else entry(name, run(scenario, out=folder, resume=folder.exists()), pictures)
        )
        page.write_text(FIRST + "".join(parts[name] for name in sorted(parts)).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
