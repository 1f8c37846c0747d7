"""The command line: the only place that prints, reads argv and exits.

Results go to stdout, progress and timing to stderr. Exit 0: done; 1: a run failed; 2: the input is wrong.
Heavy imports stand inside the commands, so that `--help` answers at once.
"""

import argparse
import io
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from uhlm_sim.errors import InputError, SimulationError, UhlmError, printable
from uhlm_sim.progress import progress_on


def say(text: object, to: TextIO | None = None) -> None:
    """Print a line, control characters written out; to stdout unless another stream is given."""
    print(printable(str(text)), file=to or sys.stdout)


class Parser(argparse.ArgumentParser):
    """An argument parser whose messages repeat no control characters."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that workers end with the run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        args.command(args)
    except InputError as error:
        say(f"uhlm-sim: {error}", sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (UhlmError, OSError) as error:
        say(f"uhlm-sim: the run failed: {error}", sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        say("uhlm-sim: interrupted", sys.stderr)
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    top = Parser(
        prog="uhlm-sim",
        description="Simulate hybrid language model inference in a mobile cell.",
        epilog="Start with: uhlm-sim run quickstart",
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, does: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=does)
        return sub

    def scenario_arguments(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("scenario", metavar="SCENARIO", help="a scenario file, or the name of a built-in one")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="override a value, for instance channel.mean_snr_db=5 or 'policy.u-hlm(risk-prone).threshold=0.5'",
        )  # fmt: skip
        sub.add_argument("--allow-plugins", action="store_true", help="let kinds name code of your own, module:object")

    def run_arguments(sub: argparse.ArgumentParser) -> None:
        scenario_arguments(sub)
        sub.add_argument("--seed", type=int, help="another seed than the scenario's")
        sub.add_argument("--jobs", type=int, default=-1, metavar="N", help="processes (default: all cores)")
        sub.add_argument("--cluster", metavar="ADDRESS", help="the scheduler of a Dask cluster that runs them")

    sub = command("run", run_command, "simulate a scenario and write its run folder")
    run_arguments(sub)
    sub.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: results/NAME, numbered)")
    sub.add_argument("--resume", action="store_true", help="go on with an interrupted run of this scenario")

    sub = command("capacity", capacity_command, "find the largest load at which each policy keeps given limits")
    run_arguments(sub)
    sub.add_argument("--vary", required=True, metavar="KEY", help="the load, a key such as traffic.devices")
    sub.add_argument(
        "--slo", action="append", required=True, metavar="METRIC<=VALUE",
        help="a limit (or >=) on the mean of a metric, such as tpot_s.p95<=0.2; several: all are kept",
    )  # fmt: skip
    sub.add_argument("--low", type=float, metavar="LOAD", help="no smaller load (default: 1, or own value / 1024)")
    sub.add_argument("--high", type=float, metavar="LOAD", help="no larger load (default: 16 times the own value)")
    sub.add_argument("--out", type=Path, metavar="DIR", help="default: results/NAME-capacity, numbered")

    sub = command("plan", plan_command, "find the least of a resource with which each policy keeps given limits")
    run_arguments(sub)
    sub.add_argument(
        "--for", action="append", default=[], metavar="KEY=VALUE", dest="demand",
        help="the demand that must be met, such as traffic.devices=60; as --set",
    )  # fmt: skip
    sub.add_argument("--vary", required=True, metavar="KEY", help="the resource, a key such as uplink.bandwidth_hz")
    sub.add_argument("--slo", action="append", required=True, metavar="METRIC<=VALUE", help="as of capacity")
    sub.add_argument("--low", type=float, metavar="VALUE", help="no smaller value (default: 1, or own value / 1024)")
    sub.add_argument("--high", type=float, metavar="VALUE", help="no larger value (default: 16 times the own value)")
    sub.add_argument("--out", type=Path, metavar="DIR", help="default: results/NAME-plan, numbered")

    sub = command("record", record_command, "decode the prompts with real models and write the trace")
    scenario_arguments(sub)
    sub.add_argument(
        "--run-answers", action="store_true",
        help="run the programs that models wrote for prompts with checks, each in a limited process; off by default",
    )  # fmt: skip

    sub = command("calibrate", calibrate_command, "fit the uncertainty law and the thresholds on a trace")
    sub.add_argument(
        "trace", metavar="TRACE", nargs="?", default="smollm2-pair",
        help="a trace file or built-in name, or a scenario whose tokens are meant",
    )  # fmt: skip
    sub.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where the figure goes")

    sub = command("validate", validate_command, "hold the simulator against theory, claim by claim")
    sub.add_argument("--quick", action="store_true", help="a twelfth of the simulations: half a minute")
    sub.add_argument("--seed", type=int, default=1, help="of every claim's random streams")
    sub.add_argument("--jobs", type=int, default=-1, metavar="N", help="processes (default: all cores)")
    sub.add_argument("--out", type=Path, default=Path("results/validation"), metavar="DIR", help="where the page goes")
    sub.set_defaults(allow_plugins=False)

    sub = command("report", report_command, "draw a run folder's figures and write its report again")
    sub.add_argument("run_dir", type=Path, metavar="RUN_DIR")

    sub = command("timeline", timeline_command, "write one simulation as a timeline that Perfetto opens")
    sub.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    sub.add_argument("--policy", metavar="LABEL", help="a policy's label (default: the first one)")
    sub.add_argument("--replication", type=int, default=0, metavar="N")
    sub.add_argument("--point", type=int, default=0, metavar="N", help="a sweep's point")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/timeline.json")

    sub = command("list", list_command, "name every built-in scenario, preset and kind, with a line for each")
    sub.add_argument("group", nargs="?", default="", metavar="GROUP", help="only groups whose heading has this word")
    sub = command("schema", schema_command, "print the JSON schema of a scenario file, or what one key may be")
    sub.add_argument("key", nargs="?", default="", metavar="KEY", help="a key or a table of keys, in words")
    return top


def run_command(args: argparse.Namespace) -> None:
    """Simulate a scenario and print its summary table."""
    from uhlm_sim.analysis.report.terminal import summary_text
    from uhlm_sim.experiment import run

    began_s = time.perf_counter()
    _check_jobs_and_path(args)
    scenario = _scenario_of(args)
    out = args.out or _run_folder(scenario.name, resume=args.resume)
    try:
        with progress_on(sys.stderr) as progress:
            results = run(
                scenario,
                out=out,
                jobs=args.jobs,
                cluster=args.cluster,
                resume=args.resume,
                allow_plugins=args.allow_plugins,
                progress=progress,
            )
    except KeyboardInterrupt:
        if out.exists():
            say(f"to go on, repeat the command with --resume --out {out}", sys.stderr)
        raise
    say(summary_text(results))
    say(f"{out}/report.html, in {time.perf_counter() - began_s:.1f} s", sys.stderr)
    if results.failed:
        points = {failure["point"] for failure in results.failed}
        left_out = "1 point failed and is" if len(points) == 1 else f"{len(points)} points failed and are"
        raise SimulationError(f"{left_out} left out; --resume --out {out} tries again")


def capacity_command(args: argparse.Namespace) -> None:
    """Search the capacity of each policy and print a row per policy."""
    from uhlm_sim.search.capacities import capacity

    _search(args, "capacity", capacity)


def plan_command(args: argparse.Namespace) -> None:
    """Search the least of a resource and print a row per policy."""
    from uhlm_sim.search.plans import plan

    args.overrides = [*args.overrides, *args.demand]
    _search(args, "plan", plan)


def _search(args: argparse.Namespace, name: str, search: Callable[..., Any]) -> None:
    began_s = time.perf_counter()
    _check_jobs_and_path(args)
    scenario = _scenario_of(args)
    for demand in getattr(args, "demand", []):
        if demand.partition("=")[0].strip() in scenario.sweep:
            raise InputError(f"--for {demand}: the scenario sweeps this key; --set 'sweep={{}}' leaves the sweep out")
    out = args.out or _run_folder(f"{scenario.name}-{name}", resume=False)
    with progress_on(sys.stderr) as progress:
        result = search(
            scenario,
            args.vary,
            args.slo,
            low=args.low,
            high=args.high,
            out=out,
            jobs=args.jobs,
            cluster=args.cluster,
            allow_plugins=args.allow_plugins,
            progress=progress,
        )
    say(result.text())
    say(f"{out}/figures/{name}.png, in {time.perf_counter() - began_s:.1f} s", sys.stderr)


def _scenario_of(args: argparse.Namespace) -> Any:
    """Read the scenario of a command and warn of keys that have no effect and of work that takes long."""
    from uhlm_sim.cautions import cautions
    from uhlm_sim.names import find_scenario
    from uhlm_sim.scenario_file import read_scenario

    scenario = read_scenario(find_scenario(args.scenario), args.overrides, args.seed)
    for sentence in cautions(scenario):
        say(f"uhlm-sim: warning: {sentence}", sys.stderr)
    return scenario


def _check_jobs_and_path(args: argparse.Namespace) -> None:
    if args.jobs == 0 or args.jobs < -1:
        raise InputError(f"--jobs {args.jobs}: must be at least 1, or -1 for all cores")
    if args.allow_plugins:
        sys.path.append(str(Path.cwd()))  # last, so that nothing there stands in for a library in the workers


def _check_folder(folder: Path) -> None:
    """Make the output folder and check that it can be written, before the work. Raises InputError."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{folder}: can't be written to ({getattr(error, 'strerror', error)})") from None


def record_command(args: argparse.Namespace) -> None:
    """Record what the scenario's trace lacks."""
    from uhlm_sim.experiment import record_missing
    from uhlm_sim.names import find_scenario
    from uhlm_sim.scenario_file import read_scenario

    scenario = read_scenario(find_scenario(args.scenario), args.overrides)
    with progress_on(sys.stderr) as progress:
        trace = record_missing(scenario, progress, run_answers=args.run_answers)
    how = f"{trace.header.dtype} on {trace.header.settings.get('device', 'cpu')}"
    say(f"{trace.file}: {len(trace.header.paths)} paths, {trace.prompts} evaluation prompts, {how}")
    for entry in trace.header.paths:
        say(f"  {entry.name}")


def validate_command(args: argparse.Namespace) -> None:
    """Print every claim with its simulated value and write the page; exit with 1 if the model fails."""
    from uhlm_sim.validation.page import write_page
    from uhlm_sim.validation.validate import validate

    began_s = time.perf_counter()
    _check_jobs_and_path(args)
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must be at least 0")
    _check_folder(args.out)
    with progress_on(sys.stderr) as progress:
        result = validate(seed=args.seed, quick=args.quick, jobs=args.jobs, progress=progress)
    say(result.text())
    say(f"{write_page(result, args.out)}, in {time.perf_counter() - began_s:.1f} s", sys.stderr)
    if not result.passed:
        sys.exit(1)


def report_command(args: argparse.Namespace) -> None:
    """Write a finished run's figures and report again, and print its summary table as the run did."""
    from uhlm_sim.analysis.report.terminal import summary_text
    from uhlm_sim.analysis.results import Results

    results = Results.read(args.run_dir)
    _check_folder(args.run_dir / "figures")
    page = results.write_report(args.run_dir)
    say(summary_text(results))
    say(page, sys.stderr)


def timeline_command(args: argparse.Namespace) -> None:
    """Write a simulation's timeline."""
    from uhlm_sim.analysis.timeline import write_timeline

    out = args.out or args.run_dir / "timeline.json"
    if args.out:
        _check_folder(out.parent)
    write_timeline(args.run_dir, out, point=args.point, policy=args.policy, replication=args.replication)
    say(out)


def list_command(args: argparse.Namespace) -> None:
    """Print every name that a scenario or a command takes, or those of a group."""
    from uhlm_sim.kinds import names_and_lines

    groups = dict(names_and_lines())
    chosen = {heading: lines for heading, lines in groups.items() if args.group.lower() in heading.lower()}
    if not chosen:
        words = [heading.partition(",")[0] for heading in groups]
        raise InputError(f"list {args.group}: no group has this word; groups are {'; '.join(words)}")
    for heading, lines in chosen.items():
        say(heading)
        for name, line in lines.items():
            say(f"  {name:<24} {line}")
    say("A kind may also be code of your own, module:object, with --allow-plugins")


def schema_command(args: argparse.Namespace) -> None:
    """Print the JSON schema of a scenario, or keys in words."""
    from uhlm_sim.keys import keys_named
    from uhlm_sim.scenario import Scenario

    if args.key:
        for name, key in keys_named(args.key).items():
            say(f"{name}: {key.allowed.replace('`', '')}{f'; default {key.default}' if key.default else ''}")
            if key.meaning:
                say(f"  {key.meaning}")
        return

    say(json.dumps(Scenario.model_json_schema(), indent=2))


def calibrate_command(args: argparse.Namespace) -> None:
    """Print a trace's law, thresholds and risks and draw the law; of synthetic tokens print the fitted law."""
    from uhlm_sim.analysis.figures.gates import gates_figure
    from uhlm_sim.analysis.figures.style import save
    from uhlm_sim.analysis.figures.uncertainty_law import uncertainty_figure
    from uhlm_sim.names import find_scenario, scenario_folder
    from uhlm_sim.scenario import SyntheticTokens
    from uhlm_sim.scenario_file import read_scenario
    from uhlm_sim.tokens.calibration import calibrate_trace, gate_risks
    from uhlm_sim.tokens.calibration_text import calibration_text
    from uhlm_sim.tokens.synthetic_law import SyntheticLaw
    from uhlm_sim.tokens.trace import Trace

    names = [file.stem for file in scenario_folder().glob("*.toml")]
    if args.trace in names or Path(args.trace).suffix == ".toml":
        tokens = read_scenario(find_scenario(args.trace)).tokens
        if isinstance(tokens, SyntheticTokens):
            say(SyntheticLaw(tokens).text())
            return
        args.trace = tokens.path
    trace = Trace.read(args.trace)
    _check_folder(args.out)
    law, risks = calibrate_trace(trace), gate_risks(trace)
    say(calibration_text(args.trace, trace, law, risks))
    thresholds = {"risk-averse": law.risk_averse, "risk-prone": law.risk_prone, "paper": 0.43}
    figure = uncertainty_figure(law.bins, law.a, law.b, thresholds)
    say(save(figure, args.out, "uncertainty_law"), sys.stderr)
    say(save(gates_figure(risks), args.out, "gates"), sys.stderr)


def _run_folder(name: str, *, resume: bool) -> Path:
    """Return results/NAME, or the first of NAME-2, NAME-3, ... that is free; to resume, the last one that is there."""
    folder = Path("results") / name
    number, last = 1, folder
    while folder.exists():
        number, last = number + 1, folder
        folder = folder.with_name(f"{name}-{number}")
    return last if resume else folder


def _version() -> str:
    from uhlm_sim.version import VERSION

    return f"uhlm-sim {VERSION}"


if __name__ == "__main__":
    main()
