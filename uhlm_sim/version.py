"""The installed version, on its own, so that nothing imports the package's root for it."""

from importlib.metadata import version

VERSION = version("uhlm-sim")
