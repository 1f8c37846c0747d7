"""Schemes that look at the network: what they keep follows what asking the LLM would cost now."""

from collections.abc import Iterator
from types import SimpleNamespace

from uhlm_sim.cell.phones.rounds import Cell, Round, Walk
from uhlm_sim.tokens import gates
from uhlm_sim.tokens.speculative import LinearLaw


def priced(walk: Walk, cell: Cell, *, price_s: float, law: LinearLaw, gate: str) -> Iterator[Round]:
    """Keep a draft while `price_s` times its predicted rejection is less than a visit would take now, else send it.

    With beta = clip(a u + b, 0, 1), the law of U-HLM (arXiv 2412.12687), and T = `Cell.visit_s` that is the threshold
    u_th = (T / price_s - b) / a, chosen draft by draft: it rises where the channel is weak or the cell busy. Of all
    rules that risk as much in sum, keeping by beta / T saves the most seconds where T is what a visit costs; here T is
    what the phone believes, and what its upload costs the others is left out (our own scheme).
    """
    doubt = gates.DOUBTS[gate]
    while walk.left:
        nodes, node = walk.nodes, walk.node
        of_draft = SimpleNamespace(**{name: getattr(nodes, name).item(node) for name in gates.MEASURED})
        u = doubt(of_draft, nodes.vocabulary_size)
        beta = min(max(law.a * u + law.b, 0.0), 1.0)
        yield walk.keep() if beta * price_s < cell.visit_s(walk.draft_bits) else walk.send()
