"""Seams: the places where a scenario names a function, built in or the user's own, and how it is found and called.

What a user's own function must look like stands in its seam; `uhlm_sim.cell.named` lists all of them.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import ModuleType
from typing import Any

from uhlm_sim.errors import ScenarioError, did_you_mean, in_words


@dataclass(frozen=True, eq=False)
class Seam:
    """A dictionary of functions, the dotted keys of a scenario that name one of them, and how it is called.

    A function gets `arguments` in this order, and asks for what it wants of `offers` by the name of a parameter (name
    -> what it means, or the key that it comes from if nobody is the `giver`). All its other parameters are constants:
    those in the table `params`, which stands beside the function's key. `files` are the keys beside it that name a file
    to be read, or tables with such names.
    """

    heading: str
    keys: tuple[str, ...]
    functions: Mapping[str, Callable[..., Any]]
    arguments: tuple[str, ...] = ()
    offers: Mapping[str, str] = field(default_factory=dict)
    giver: str = ""
    params: str = ""
    files: tuple[str, ...] = ()

    def find(self, name: str, key: str = "", *, allow_plugins: bool = False) -> Callable[..., Any]:
        """Return the function of a name: an entry of the dictionary, or the object of a user's own `module:object`.

        Raises ScenarioError for an unknown name, and for a user's object that may not or can't be imported.
        """
        if name in self.functions:
            return self.functions[name]
        where = f"{key or self.keys[0]} = '{name}'"
        module, colon, attribute = name.partition(":")
        if not colon:
            hint = did_you_mean(name, self.functions)
            raise ScenarioError(f"{where}: must be one of {', '.join(self.functions)}{hint}")
        if not allow_plugins:
            raise ScenarioError(f"{where}: code of your own runs only with --allow-plugins")
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's own module may raise anything, SystemExit too
            raise ScenarioError(f"{where}: can't be imported ({in_words(error)})") from None
        return function

    def named(self, scenario: object, *, allow_plugins: bool = False) -> Iterator["Named"]:
        """Yield what a scenario names at this seam: once a key, or for each table of a list ("policy.0.kind")."""
        for key in self.keys:
            *tables, last = key.split(".")
            for above, table in _tables(scenario, tables):
                place, name = f"{above}{last}", getattr(table, last)
                yield Named(
                    self,
                    place,
                    name,
                    self.find(name, place, allow_plugins=allow_plugins),
                    getattr(table, self.params) if self.params else {},
                    tuple(file for beside in self.files for file in _texts(getattr(table, beside))),
                )


@dataclass(frozen=True, eq=False)
class Named:
    """A function as a scenario names it, `key` = `name`, with its `params` there and the `files` named beside it."""

    seam: Seam
    key: str
    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Say whether it is the user's own function."""
        return self.name not in self.seam.functions

    @cached_property
    def asks(self) -> list[str]:
        """Return what the function asks for of the seam's offers. Raises ScenarioError if it can't be called at all."""
        return [name for name in self._parameters if name in self.seam.offers]

    def states(self, attribute: str) -> bool:
        """Say whether the function states a property: has an attribute of that name that is true."""
        return bool(getattr(self.function, attribute, False))

    def bind(self, values: Mapping[str, Any]) -> Callable[..., Any]:
        """Return the function with its params and what it asks for of `values`; what is None isn't there.

        Raises ScenarioError if it can't be called so, or asks for what isn't there.
        """
        constants = {name: values[name] for name in self.asks if name in values}
        self.check(constants)
        for name, value in constants.items():
            if value is None:
                raise ScenarioError(f"{self.key} = '{self.name}': needs {self.seam.offers[name]}")
        constants |= self.params
        return partial(self.function, **constants) if constants else self.function

    def check(self, handed: Collection[str]) -> None:
        """Raise ScenarioError if it can't be called with its arguments, what is `handed` by name, and its params."""
        seam, params_key = self.seam, f"{self.key.rpartition('.')[0]}.{self.seam.params}"
        where, free = f"{params_key} of {self.name}", [name for name in self._parameters if name not in handed]
        takes = f"it takes {' and '.join(seam.arguments)}, what it names of {', '.join(seam.offers) or 'nothing'}, and "
        note = f" ({takes}the constants in {params_key})" if self.is_own else ""
        for name, value in self.params.items():
            if name in handed:
                raise ScenarioError(f"{where}: '{name}' comes from {seam.giver or seam.offers[name]}{note}")
            if isinstance(value, str) and name in free and self._parameters[name].annotation in (float, "float"):
                raise ScenarioError(f"{where}: {name} = '{value}' must be a number")
        try:
            self._signature.bind(*seam.arguments, **dict.fromkeys(handed), **self.params)
        except TypeError as error:
            hint = did_you_mean(next((name for name in self.params if name not in free), ""), free)
            allowed = f"params allowed: {', '.join(free) or 'none'}{hint}"
            raise ScenarioError(f"{where}: {error}; {allowed}{note}") from None

    @cached_property
    def _signature(self) -> inspect.Signature:
        try:
            return inspect.signature(self.function)
        except (TypeError, ValueError) as error:
            raise ScenarioError(f"{self.key} = '{self.name}': {error}") from None

    @property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        """Return the parameters that come after the seam's arguments."""
        return dict(list(self._signature.parameters.items())[len(self.seam.arguments) :])


NamedFunctions = Mapping[str, Named]  # what a scenario names, by dotted key


def own_modules(named: Iterable[Named]) -> list[ModuleType]:
    """Return the user's own modules that some functions come from, each once."""
    modules = dict.fromkeys(function.name.partition(":")[0] for function in named if function.is_own)
    return [sys.modules[module] for module in modules]


def _tables(value: Any, parts: list[str], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key and a dot, table) for the tables at a path: each of a list by its index, none where unset."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _tables(entry, parts, f"{above}{number}.")
    elif value is not None and parts:
        yield from _tables(getattr(value, parts[0]), parts[1:], f"{above}{parts[0]}.")
    elif value is not None:
        yield above, value


def _texts(value: Any) -> list[str]:
    """Return the texts that a value is or, as a table, holds."""
    return [text for text in (value.values() if isinstance(value, Mapping) else [value]) if isinstance(text, str)]
