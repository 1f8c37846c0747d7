"""A run's figures for a notebook: on axes of yours, or as figures of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import bounds, frontier, maps, plots, queues, sweeps, swept
from uhlm_sim.analysis.figures.style import Look, looks, note_source
from uhlm_sim.analysis.measures import bottleneck
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.metrics import LATENCIES
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from uhlm_sim.analysis.results import Results

TITLES = {**sweeps.PANELS, **sweeps.LATENCIES, **sweeps.BATCHES}
P = ParamSpec("P")
T = TypeVar("T")


def _noted(draw: "Callable[Concatenate[Plots, P], T]") -> "Callable[Concatenate[Plots, P], T]":
    """Mark the figure that a method returns with where its tokens come from; axes are the caller's own."""

    @wraps(draw)
    def noted(self: "Plots", /, *args: P.args, **kwargs: P.kwargs) -> T:
        drawn = draw(self, *args, **kwargs)
        if isinstance(drawn, Figure):
            note_source(drawn, self.results.source)
        return drawn

    return noted


@dataclass(frozen=True)
class Plots:
    """Draws what the report draws. With `ax` a method draws there and returns it, without legend or title: artists
    have labels, so that `ax.legend()` makes one. Without, it returns a Figure, which a notebook shows.

    Of a sweep, what isn't drawn over it is drawn for its middle point; `Results.at` chooses others. InputError where
    there is nothing to draw.
    """

    results: "Results"

    @property
    def looks(self) -> dict[str, Look]:
        """Return each policy's colour and line, the same in all figures of the run."""
        return looks(self.results.policies)

    @_noted
    def throughput(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw the cell's tokens a second by policy; the figure has a phone's rate beside it."""
        one = self.results.middle_point()
        if ax is None:
            return plots.throughput_figure(plots.throughput_table(one.summary), one.policies)
        plots.draw_metric(ax, one.summary, "token_throughput", self.looks)
        return ax

    @_noted
    def legs(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw where a token's time goes."""
        table = plots.legs_table(self.results.middle_point().summary)
        if ax is None:
            return plots.legs_figure(table)
        plots.draw_legs(ax, table)
        return ax

    @_noted
    def energy(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw what a token costs in joules, and where."""
        table = plots.energy_table(self.results.middle_point().summary)
        _require(len(table) > 0, "no power of a phone is known in this run: device.power_w, device.radio")
        if ax is None:
            return plots.energy_figure(table)
        plots.draw_energy(ax, table)
        return ax

    @_noted
    def batches(self, ax: Axes | None = None, metric: str = "batch_tokens") -> Axes | Figure:
        """Draw the mean size of a batch, in new tokens or (`batch_jobs`) in jobs; the figure has both."""
        table = plots.batch_table(self.results.middle_point().summary)
        _require(len(table) > 0, "no policy of this run asks the LLM")
        if ax is None:
            return plots.batch_figure(table, self.results.policies)
        plots.draw_metric(ax, table, metric, self.looks)
        return ax

    @_noted
    def token_time(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw the distribution of the time per token."""
        one = self.results.middle_point()
        table = plots.token_time_table(_tokens(one), one.window_s)
        return self._ecdf(ax, table, "delay_s", "time per token, s", "tokens")

    @_noted
    def ttft(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw the distribution of the time to first token."""
        one = self.results.middle_point()
        table = plots.ttft_table(one.requests, one.window_s)
        return self._ecdf(ax, table, "ttft_s", "time to first token, s", "requests")

    def _ecdf(self, ax: Axes | None, table: pd.DataFrame, column: str, label: str, counted: str) -> Axes | Figure:
        if ax is None:
            return plots.ecdf_figure(table, column, label, counted, self.results.policies)
        plots.draw_ecdf(ax, table, column, self.looks)
        ax.set(xlabel=label, ylabel=f"share of {counted}")
        return ax

    @_noted
    def queues(self, ax: Axes | None = None, station: str = "uplink") -> Axes | Figure:
        """Draw jobs present over time, at the "uplink" or the "base_station"; the figure has both."""
        one = self.results.middle_point()
        warmup_s, duration_s = one.window_s
        table = queues.queue_table(_tokens(one), duration_s)
        if ax is None:
            return queues.queue_figure(table, warmup_s, one.policies)
        queues.draw_queue(ax, table, station, self.looks, warmup_s)
        return ax

    @_noted
    def over(self, metric: str = "token_throughput", ax: Axes | None = None) -> Axes | Figure:
        """Draw a metric over the one value that is swept, with the guides that the report draws."""
        summary = self.results.summary
        known = [str(name) for name in summary["metric"].unique()]
        _require(metric in known, f"metric '{metric}': this run has none{did_you_mean(metric, known)}")
        is_latency = metric.partition(".")[0] in LATENCIES
        table = latency_table(self.results, self._swept(1)[0], [metric]) if is_latency else self._over([metric])
        _require(len(table) > 0, f"metric '{metric}': null everywhere")
        title = TITLES.get(metric, f"{metric}, {table['unit'].iloc[0]}").format(first=self.results.policies[0])
        if ax is None:
            return sweeps.over_figure(table, {metric: title}, joined_policies(self.results))
        sweeps.draw_over(ax, table, metric, looks(joined_policies(self.results)))
        ax.set_ylabel(title)
        return ax

    @_noted
    def sweep(self) -> Figure:
        """Draw throughput, utilisation and attainment over the one value that is swept.

        In panels of a figure of its own; `over("token_throughput", ax)` draws one of them on axes of yours.
        """
        return sweeps.over_figure(self._over(list(sweeps.PANELS)), policies=joined_policies(self.results))

    @_noted
    def latency(self) -> Figure:
        """Draw the percentiles of TTFT and TPOT over the one value that is swept, with the SLO.

        In panels of a figure of its own; `over("ttft_s.p95", ax)` draws one of them on axes of yours.
        """
        x = self._swept(1)[0]
        return sweeps.latency_figure(latency_table(self.results, x), joined_policies(self.results))

    @_noted
    def legs_over(self) -> Figure:
        """Draw where a token's time goes at each value that is swept: a figure with a panel for each policy."""
        return sweeps.legs_over_figure(sweeps.legs_over_table(self.results.summary, self._swept(1)[0]))

    def bottleneck(self, policy: str = "", ax: Axes | None = None) -> Axes | Figure:
        """Draw the cell's throughput over its phones or their rate beside the bounds of its stations.

        One policy's on axes, else all in panels of a figure. `bottleneck.bottleneck_table` has the numbers of any run.
        """
        x = self._swept(1)[0]
        _require(x in bounds.LOADS, f"bounds are drawn over {' or '.join(bounds.LOADS)}; this run sweeps {x}")
        table = bottleneck.load_table(self.results, x)
        if ax is None and not policy:
            return bounds.bounds_figure(table, self.results.policies)
        label = self.results.named(policy)[0]
        if ax is None:
            return bounds.bounds_figure(table[table["policy"] == label], self.results.policies)
        bounds.draw_bounds(ax, table, label, self.looks[label])
        ax.set_ylabel("tokens/s")
        return ax

    def _over(self, metrics: list[str]) -> pd.DataFrame:
        table = sweeps.over_table(self.results.summary, self._swept(1)[0], metrics)
        return sweeps.with_guides(table, self.results.scenario.get("slo", {}))

    @_noted
    def ratio_map(self, policy: str = "", ax: Axes | None = None, metric: str = "token_throughput") -> Axes | Figure:
        """Draw a metric's ratio to the first policy over two swept values: one policy's on axes, else all."""
        return self._map(f"{metric}{RATIO}", policy, ax)

    @_noted
    def attainment_map(self, policy: str = "", ax: Axes | None = None) -> Axes | Figure:
        """Draw the share of requests that meet the SLOs over two swept values: one policy's on axes, else all."""
        return self._map(maps.ATTAINMENT, policy, ax)

    def _map(self, metric: str, policy: str, ax: Axes | None) -> Axes | Figure:
        x, y = self._swept(2)
        table = maps.map_table(self.results.summary, x, y, metric)
        _require(len(table) > 0, f"metric '{metric}': null everywhere")
        names = [str(name) for name in table["policy"].unique()]
        if policy or ax is not None:
            label = self.results.named(policy)[0]
            _require(label in names, f"policy '{label}': no map of it; there are {', '.join(names)}")
            table = table[table["policy"] == label]
        if ax is None:
            return maps.map_figure(table, self.results.policies)
        maps.draw_map(ax, table, label)
        return ax

    @_noted
    def frontier(self, ax: Axes | None = None, cost: str = "distribution_error") -> Axes | Figure:
        """Draw accuracy against speed over the thresholds: one cost (see `frontier.COSTS`) on axes, else all known."""
        table = frontier_of(self.results)
        if ax is None:
            _require(len(table) > 0, "no policy of this run skips, or what it costs isn't known")
            return frontier.frontier_figure(table, joined_policies(self.results))
        costs = [str(name) for name in table["metric"].unique()]
        _require(cost in costs, f"cost '{cost}': not in this run; there are {', '.join(costs) or 'none'}")
        frontier.draw_frontier(ax, table, cost, looks(joined_policies(self.results)), self.results.policies[0])
        return ax

    def _swept(self, count: int) -> list[str]:
        keys = swept.varied(self.results.summary, self.results.sweep)
        told = f"this run sweeps {', '.join(keys) or 'nothing'}"
        _require(len(keys) == count, f"a figure over {count} swept value{'s' if count > 1 else ''}: {told}")
        return keys


def swept_threshold(results: "Results") -> list[str]:
    """Return the threshold key that a run sweeps, if that is all it sweeps."""
    keys = swept.varied(results.summary, results.sweep)
    return keys if len(keys) == 1 and swept.is_threshold(keys[0]) else []


def joined_policies(results: "Results") -> list[str]:
    """Return a run's policies in order; over one swept value those that follow it are one."""
    keys = swept.varied(results.summary, results.sweep)
    return list(sweeps.joined(results.summary, keys[0]).unique()) if len(keys) == 1 else results.policies


def latency_table(results: "Results", x: str, metrics: Sequence[str] = tuple(sweeps.LATENCIES)) -> pd.DataFrame:
    """Return latencies over a swept value with each point's verdict and the limits of the SLOs."""
    start_s, end_s = results.window_s
    is_open = not results.closed_loop
    judged = verdicts(results.replications, window_s=end_s - start_s, open_arrivals=is_open)
    table = sweeps.with_verdicts(sweeps.over_table(results.summary, x, metrics), judged)
    return sweeps.with_guides(table, results.scenario.get("slo", {}))


def frontier_of(results: "Results") -> pd.DataFrame:
    """Return a run's `frontier_table`: of the swept thresholds, or else of the policies of its middle point."""
    keys = swept_threshold(results)
    kinds = {str(told["label"]): str(told["kind"]) for told in results.provenance["policies"]}
    return frontier.frontier_table(results.summary if keys else results.middle_point().summary, kinds, keys)


def _tokens(results: "Results") -> pd.DataFrame:
    _require(results.tokens is not None, "this run kept no token tables (output.tokens = false)")
    assert results.tokens is not None
    return results.tokens


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InputError(otherwise)
