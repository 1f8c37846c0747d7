"""Run the commands of two pages and put into them what they print; with --check, say whether it is there.

python docs/paper.py [--check] [--quick]

The pages are docs/paper.md and docs/qwen_trace.md. A command is a block of `sh` or `python` that is followed by a block
of `text`, its output. They run in the page's order in one empty folder, each with this interpreter's `uhlm-sim`.
--quick runs those marked <!-- quick -->.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGES = [Path(__file__).with_name(name) for name in ("paper.md", "qwen_trace.md")]
INSIDE = r"((?:(?!```).)*)```"
BLOCK = re.compile(rf"(<!-- quick -->\n)?```(sh|python)\n{INSIDE}\n\n```text\n{INSIDE}", flags=re.DOTALL)


def output(language: str, code: str, folder: Path) -> str:
    """Return what a block prints, without blanks at the ends of lines."""
    command = ["bash", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"this block of the page failed:\n{code}\n{done.stdout}{done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def renewed(page: str, *, quick: bool = False) -> str:
    """Return the page with the output of its commands as they print it now; `quick`: of the quick ones."""
    with tempfile.TemporaryDirectory() as folder:

        def run(block: re.Match[str]) -> str:
            mark, language, code, printed = block.groups(default="")
            if not quick or mark:
                printed = output(language, code, Path(folder))
            return f"{mark}```{language}\n{code}```\n\n```text\n{printed}```"

        return BLOCK.sub(run, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a digit differs")
    parser.add_argument("--quick", action="store_true", help="only the blocks marked as quick")
    args = parser.parse_args()
    differs = False
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = renewed(old, quick=args.quick)
        print(
            "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), page.name, "its commands", lineterm=""))
        )
        differs |= new != old
        if not args.check:
            page.write_text(new, encoding="utf-8")
    if args.check and differs:
        sys.exit(1)


if __name__ == "__main__":
    main()
