"""The list of all seams, and the look-up of the functions that a scenario names at them."""

from uhlm_sim.cell.gpus.batching import BATCH_RULE, ORDER
from uhlm_sim.cell.gpus.service import SERVICE
from uhlm_sim.cell.phones.arrivals import TRAFFIC
from uhlm_sim.cell.phones.policies import POLICY
from uhlm_sim.cell.radio.allocators import ALLOCATOR
from uhlm_sim.cell.radio.fading import CHANNEL
from uhlm_sim.cell.radio.mean_snr import PATH
from uhlm_sim.cell.radio.setup import LINK
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import NamedFunctions

SEAMS = (POLICY, TRAFFIC, CHANNEL, PATH, ALLOCATOR, LINK, BATCH_RULE, ORDER, SERVICE)


def find_names(scenario: Scenario, *, allow_plugins: bool = False) -> NamedFunctions:
    """Return dotted key -> the function that the scenario names there, a user's own only if plugins are allowed.

    Raises ScenarioError for a name that there isn't, or a user's own that may not or can't be imported.
    """
    return {named.key: named for seam in SEAMS for named in seam.named(scenario, allow_plugins=allow_plugins)}
