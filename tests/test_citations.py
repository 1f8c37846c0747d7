"""The papers behind a scenario, as its functions' docstrings cite them."""

from uhlm_sim.cell.named import SEAMS, find_names
from uhlm_sim.citations import Citation, citations
from uhlm_sim.scenario_file import load
from uhlm_sim.seams import Named


def test_a_docstrings_sources_are_read_whatever_their_form() -> None:
    def cited() -> None:
        """Do it (Williams, Waterman and Patterson, Roofline: a visual model, CACM 2009; Kleinrock, Queueing Systems,
        volume 1, 1975, chapter 2), as Fischer and Meier-Hellstern, The cookbook, Performance Evaluation 1993, have it.
        """

    papers = citations([Named(SEAMS[0], "policy.kind", "mine", cited)])
    assert papers == [
        Citation("Fischer and Meier-Hellstern", "The cookbook", "Performance Evaluation", "1993", ("mine",)),
        Citation("Kleinrock", "Queueing Systems", "volume 1", "1975", ("mine",)),
        Citation("Williams, Waterman and Patterson", "Roofline: a visual model", "CACM", "2009", ("mine",)),
    ]
    assert papers[2].bibtex.splitlines() == [
        "@misc{williams2009roofline,",
        "  author = {Williams and Waterman and Patterson},",
        "  title = {{Roofline: a visual model}},",
        "  howpublished = {CACM},",
        "  year = {2009},",
        "}",
    ]


def test_quickstart_cites_its_scheme_its_fading_and_its_gpu_model() -> None:
    papers = citations(find_names(load("quickstart")).values())
    by_name = {name: paper.authors for paper in papers for name in paper.used_for}
    assert by_name["u-hlm"] == "Oh, Kim, Park, Ko, Quek and Kim"
    assert by_name["hlm"] == "Leviathan, Kalman and Matias"
    assert by_name["rayleigh"] == "Tse and Viswanath"
    assert by_name["fitted"] == "Williams, Waterman and Patterson"
    keys = [paper.bibtex.partition(",")[0] for paper in papers]
    assert len(set(keys)) == len(keys)
