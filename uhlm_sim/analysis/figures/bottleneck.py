"""What limits a cell: what it commits as its load grows, beside the bounds of its stations."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import DECADE, key_words, set_swept
from uhlm_sim.analysis.figures.over_sweep import over_table
from uhlm_sim.analysis.figures.style import INK, LEG_COLOURS, QUIET, Look, looks, new_panels, panel_columns, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.bottleneck import PHONES, STATIONS, load_table
from uhlm_sim.errors import InputError
from uhlm_sim.tables import LEGS

USERS, RATE = "traffic.devices", "traffic.rate_per_s"
LOADS = (USERS, RATE)
OFFERED = "offered"
_DASHES: tuple[object, ...] = ((0.0, (5.0, 1.5)), (0.0, (1.5, 1.0)), (0.0, (5.0, 1.5, 1.0, 1.5)))
LINES: dict[str, Look] = {
    PHONES: Look(QUIET, "-"),
    **{s.name: Look(LEG_COLOURS[s.leg][1], _DASHES[i % len(_DASHES)]) for i, s in enumerate(STATIONS)},  # type: ignore[arg-type]
    OFFERED: Look(INK, (0.0, (1.0, 2.0))),
}
WORDS = {PHONES: "phones alone, N/(Z + S)", OFFERED: "offered load"}


def bounds_of(table: pd.DataFrame, policy: str) -> dict[str, pd.Series]:
    """Return the lines above a policy's throughput, by name: tokens a second at each of the table's loads.

    `table` is a `bottleneck_table` whose first column is the load: phones, or requests a second of a phone. A station's
    line is its bound at the most load, where its demand is least. That of the `phones` is theirs where they are fewest
    and nobody's batch is longer for company, in proportion to their number. `offered` is what open arrivals ask for.
    """
    x = str(table.columns[0])
    one = table[table["policy"] == policy].sort_values(x, kind="stable")
    at = one[x].drop_duplicates().to_numpy(dtype=np.float64)
    bounds = {}
    for name in (PHONES, *(station.name for station in STATIONS)):
        bound = one.loc[one["station"] == name, "bound"].to_numpy(dtype=np.float64)
        if len(bound):
            bounds[name] = pd.Series(bound[0] * at / at[0] if name == PHONES and x == USERS else bound[-1], index=at)
    offered = one.drop_duplicates(x)[OFFERED].to_numpy(dtype=np.float64)
    return bounds | ({OFFERED: pd.Series(offered, index=at)} if np.isfinite(offered).any() else {})


def knee(bounds: Mapping[str, pd.Series]) -> float:
    """Return N*, at which the phones' bound meets the least of the stations'; NaN without a station or open arrivals.

    N* = (Z + S) / max D (Kleinrock, Queueing Systems, volume 2, 1976, section 4.12): up to there phones hardly meet,
    beyond they queue.
    """
    ceilings = [float(line.iloc[-1]) for name, line in bounds.items() if name not in (PHONES, OFFERED)]
    if OFFERED in bounds or PHONES not in bounds or not ceilings:
        return np.nan
    return min(ceilings) * float(bounds[PHONES].index[-1]) / float(bounds[PHONES].iloc[-1])


def frame(table: pd.DataFrame, policies: Sequence[str]) -> tuple[float, float]:
    """Return the least and the most tokens a second of a frame: to twice the least bound of the fastest policy."""
    lines = [bounds_of(table, policy) for policy in policies]
    top = max(min(float(line.iloc[-1]) for name, line in bounds.items() if name != OFFERED) for bounds in lines)
    here = table.loc[table["policy"].isin(policies) & (table["token_throughput"] > 0), "token_throughput"]
    return 0.7 * float(here.min()), 2.0 * top


def draw_bounds(
    ax: Axes, table: pd.DataFrame, policy: str, look: Look, within: tuple[float, float] | None = None
) -> None:
    """Draw a policy's tokens a second against the load, its 95 % interval as a band, and its bounds as thin lines.

    `table` as for `bounds_of`; `within` as `frame` gives it, so that several panels have one. Both axes are logarithmic
    where they span more than a decade. N* stands at the axis of the phones of a closed loop.
    """
    x = str(table.columns[0])
    bounds, (bottom, top) = bounds_of(table, policy), within or frame(table, [policy])
    for name, line in bounds.items():
        style = LINES[name]
        where = np.geomspace(line.index[0], line.index[-1], 60)  # straight only where both axes are of one kind
        value = np.interp(where, line.index.to_numpy(), line.to_numpy())
        ax.plot(where, value, color=style.colour, linestyle=style.line, linewidth=0.8, label=name, zorder=1.5)
    one = table[table["policy"] == policy].drop_duplicates(x).sort_values(x)
    columns = (x, *(f"token_throughput{end}" for end in ("", "_low", "_high")))
    at, mean, low, high = (one[name].to_numpy(dtype=np.float64) for name in columns)
    ax.plot(at, mean, color=look.colour, linestyle=look.line, linewidth=1.4, marker=".", label=policy)
    ax.fill_between(at, np.fmax(low, 0.5 * bottom), high, color=look.colour, alpha=0.18, linewidth=0)
    if top > DECADE * bottom:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top < 50 * bottom else (1.0,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(bottom if top > DECADE * bottom else 0.0, top)
    meet = knee(bounds)
    if at[0] < meet < at[-1] and x == USERS:
        ax.axvline(meet, ymax=0.06, color=INK, linewidth=0.8)
        left = meet > np.sqrt(at[0] * at[-1])
        ax.annotate(
            *(f"N* = {meet:.3g}", (meet, 0.0)),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if left else 3, 2),
            textcoords="offset points",
            fontsize=6,
            ha="right" if left else "left",
        )
    if ax.get_yscale() == "log":
        ax.set_xscale("log")  # so that what grows in proportion is straight
        ax.xaxis.set_minor_formatter(NullFormatter())
    set_swept(ax.xaxis, table[x])
    ax.set_xlabel(key_words(x))


def bounds_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw a panel for each policy of a `bottleneck_table` over one load, its first column, in one frame."""
    names = policies_of(table)
    styles, within = looks(policies or names), frame(table, names)
    columns = panel_columns(len(names))
    used = dict.fromkeys(name for policy in names for name in bounds_of(table, policy))
    with new_panels(len(names), columns, 1.75, 0.65, sharey=True) as (figure, axes):
        for number, (ax, name) in enumerate(zip(axes, names, strict=True)):
            draw_bounds(ax, table, name, styles[name], within)
            ax.set_title(name)
            if number % columns == 0:
                ax.set_ylabel("tokens/s")
            if number + columns < len(names):
                ax.set_xlabel("")
        lines = [Line2D([], [], color=INK, marker=".", linewidth=1.4, label="simulated")]
        for name in (name for name in LINES if name in used):
            text, style = WORDS.get(name, f"{name} full, 1/D"), LINES[name]
            lines.append(Line2D([], [], color=style.colour, linestyle=style.line, linewidth=0.8, label=text))
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), handlelength=2.6)
    return figure


def drawing(view: View, policy: str = "", ax: Axes | None = None) -> Drawing:
    """Draw the cell's throughput over its phones or their rate beside the bounds of its stations.

    One policy's on axes, else all in panels of a figure. `bottleneck.bottleneck_table` has the numbers of any run.
    """
    run, x = view.run, view.keys[0]
    if x not in LOADS:
        raise InputError(f"bounds are drawn over {' or '.join(LOADS)}; this run sweeps {x}")
    if over_table(run.summary, x, LEGS).empty:
        raise InputError("no token of this run was committed in the window")
    table = load_table(run, x)
    if policy or ax is not None:
        label = run.named(policy)[0]
        table = table[table["policy"] == label]
    if ax is None:
        figure: Axes | Figure = bounds_figure(table, run.policies)
    else:
        draw_bounds(ax, table, label, looks(run.policies)[label])
        ax.set_ylabel("tokens/s")
        figure = ax
    meets = "" if run.is_open else " Where it meets the least of the others is N*: beyond it phones queue."
    offered = " Dotted: what the arrivals ask for." if run.is_open else ""
    return Drawing(
        "bottleneck",
        f"What limits the cell over {key_words(x)}",
        "Tokens a second of the cell beside the asymptotic bounds of queueing theory. The grey line is N phones that "
        "wait for nobody, taken from where they are fewest: a token holds its phone for Z + S, Z outside the shared "
        f"stations and S in service.{meets} Each other line is a station in use all the time, 1/D, with D its time per "
        "token at the most load and GPUs with full batches; one that lies above the frame doesn't limit."
        f"{offered}{wording.intervals(run, 'Bands')}{view.note}",
        table,
        figure,
    )
