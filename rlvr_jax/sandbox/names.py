"""Names in test code, by Python's scoping rules: those that the program under test has to define."""

import ast
import builtins
import importlib
import symtable
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Modules that tests use without an import, because their reference solution had one.
_KNOWN = {
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "datetime": ("datetime", "date", "timedelta"),
    "math": ("inf", "isclose", "nan", "pi", "sqrt"),
    "typing": ("Any", "Dict", "List", "Optional", "Set", "Tuple"),
}
_HOME = {name: module for module, names in _KNOWN.items() for name in names}
# Builtins that tests apply to results. They are under test only if nothing else is called.
_HELPING = """
    bool callable dict enumerate float frozenset getattr hasattr int isinstance issubclass iter len list map next print
    range repr set sorted str tuple type zip
"""
_HELPERS = frozenset(_HELPING.split())
_COMPOUND = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While, ast.If, ast.With,
    ast.AsyncWith, ast.Try, ast.TryStar, ast.Match,
)  # fmt: skip


@dataclass
class Names:
    """Global names of some code.

    Attributes:
      loaded: read when the code runs, before it binds them.
      later: read by its functions when these are called.
      bound: assigned, imported or defined by it.
    """

    loaded: set[str]
    later: set[str]
    bound: set[str]

    @property
    def used(self) -> set[str]:
        return self.loaded | self.later

    @property
    def free(self) -> set[str]:
        """Those that must be defined elsewhere."""
        return self.loaded | (self.later - self.bound)


def _collect(table: symtable.SymbolTable, names: Names, inside: bool) -> None:
    """Adds the names of the scope and those within. `inside`: of a function, which runs when it is called."""
    at_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if at_top or symbol.is_global():
            if symbol.is_referenced():
                (names.later if inside else names.loaded).add(symbol.get_name())
            if symbol.is_assigned() or symbol.is_imported() or (at_top and symbol.is_namespace()):
                names.bound.add(symbol.get_name())
    for child in table.get_children():
        runs_at_once = child.get_type() == "class" or child.get_name() in ("listcomp", "setcomp", "dictcomp", "genexpr")
        _collect(child, names, inside or not runs_at_once)


def _of_statement(statement: ast.stmt) -> Names:
    names = Names(set(), set(), set())
    _collect(symtable.symtable(ast.unparse(statement), "tests.py", "exec"), names, inside=False)
    if isinstance(statement, _COMPOUND):  # the target of a loop is bound before its body reads it
        names.loaded -= names.bound
    return names


def names_of(sources: Iterable[str]) -> Names:
    """The names of pieces of code that run one after another in one namespace. Raises SyntaxError."""
    names = Names(set(), set(), set())
    for statement in [statement for source in sources for statement in ast.parse(source).body]:
        one = _of_statement(statement)
        names.loaded |= one.loaded - names.bound
        names.later |= one.later
        names.bound |= one.bound
    return names


def _only_as_modules(sources: Iterable[str], names: set[str]) -> set[str]:
    """Those of the names that are only used in the form `name.attribute`."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    alone = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
    return names - alone


def _called(sources: Iterable[str]) -> set[str]:
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def under_test(sources: Sequence[str], entry_points: Sequence[str] = ()) -> tuple[set[str], dict[str, Any]]:
    """The names that tests take from the program, and those that they take from the standard library.

    Those of the program are `entry_points` or, without them, all that are defined nowhere else. Builtins are the
    program's only if they are entry points, or if the tests call nothing else.
    """
    free = names_of(sources).free
    own = free - vars(builtins).keys()
    library = {name: name for name in _only_as_modules(sources, own) & sys.stdlib_module_names}
    library |= {name: _HOME[name] for name in own & _HOME.keys()}
    if own <= library.keys() and not entry_points:  # then the tests are about an object of that name
        library = {}
    if entry_points:  # other definitions of the program, such as a helper of the tests, are not used
        own = free & set(entry_points)
    elif not own:
        called = _called(sources) & free
        own = called - _HELPERS or called
    found = {}
    for name, module in library.items():
        if name not in entry_points:
            found[name] = importlib.import_module(module)
            if name != module or name in _HOME:
                found[name] = getattr(found[name], name, found[name])
    return own - found.keys(), found
