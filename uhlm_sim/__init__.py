"""Discrete-event simulation of hybrid language model inference in a mobile cell.

`load` a scenario, `run` it, and ask its `Results`:

    from uhlm_sim import load, run
    results = run(load("quickstart", {"traffic.devices": 40}))
    results.ratio("u-hlm(0.43)", "hlm", "token_throughput")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uhlm_sim.version import VERSION

if TYPE_CHECKING:
    from uhlm_sim.analysis.results import Results
    from uhlm_sim.cell.phones.policies import Scheme
    from uhlm_sim.experiment import run
    from uhlm_sim.scenario import Scenario
    from uhlm_sim.scenario_file import load
    from uhlm_sim.search.capacities import Capacity, capacity
    from uhlm_sim.search.plans import Plan, plan

__all__ = ["Capacity", "Plan", "Results", "Scenario", "Scheme", "__version__", "capacity", "load", "plan", "run"]
__version__ = VERSION

_HOMES = {
    "Capacity": "uhlm_sim.search.capacities",
    "Plan": "uhlm_sim.search.plans",
    "Results": "uhlm_sim.analysis.results",
    "Scenario": "uhlm_sim.scenario",
    "Scheme": "uhlm_sim.cell.phones.policies",
    "capacity": "uhlm_sim.search.capacities",
    "load": "uhlm_sim.scenario_file",
    "plan": "uhlm_sim.search.plans",
    "run": "uhlm_sim.experiment",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `uhlm-sim --help` needn't wait."""
    if name not in _HOMES:
        raise AttributeError(f"module 'uhlm_sim' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
