"""Which modules a module imports when it is imported itself, read from its byte code (>= 3.6).

Told as text, one import statement a line, in their order: `name:` for `import name`, and
`.pkg:a,b` for `from .pkg import a, b`, with the dots as they are in the source. What functions
import later is not of interest, and neither is what stands behind `if TYPE_CHECKING:`.
"""

import dis
import marshal
import re
import site
import sys
from importlib.machinery import FrozenImporter, PathFinder
from opcode import EXTENDED_ARG, opmap
from pkgutil import iter_modules

IMPORT_NAME = opmap["IMPORT_NAME"]
LOAD_CONST = opmap["LOAD_CONST"]
LOAD_SMALL_INT = opmap.get("LOAD_SMALL_INT", -1)
LOAD_NAME = opmap["LOAD_NAME"]
LOAD_ATTR = opmap["LOAD_ATTR"]
ATTRIBUTE_SHIFT = 1 if sys.version_info >= (3, 12) else 0  # its lowest bit is a flag
CHECKING = "TYPE_CHECKING"
HEADER_BYTES = 16 if sys.version_info >= (3, 7) else 12
TOP_LEVEL = re.compile(
    rb"^(?:import[ \t]+([\w.]+)|from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+\(?([\w, \t\r\n]+))", re.M
)


def instruction_before(code, at):
    """Operation and operand of the instruction that ends at `at`, and where it starts."""
    at -= 2
    operand, shift = code[at + 1], 8
    operation = code[at]
    while at >= 2 and code[at - 2] == EXTENDED_ARG:
        at -= 2
        operand |= code[at + 1] << shift
        shift += 8
    return operation, operand, at


def skipped(code, names):
    """From where to where nothing counts: behind `if TYPE_CHECKING:`, up to the next label."""
    labels = sorted(dis.findlabels(code))
    found = []
    for at in range(0, len(code), 2):
        if code[at] in (LOAD_NAME, LOAD_ATTR):
            operation, operand, _ = instruction_before(code, at + 2)
            operand >>= ATTRIBUTE_SHIFT if operation == LOAD_ATTR else 0
            if operand < len(names) and names[operand] == CHECKING:
                found.append((at, next((label for label in labels if label > at), at)))
    return found


def imports_of(module):
    """The import statements of a module's code, each as a line."""
    code, names, constants = module.co_code, module.co_names, module.co_consts
    ranges = skipped(code, names) if CHECKING in names else ()
    found = []
    at = code.find(IMPORT_NAME)
    while at >= 0:
        if at % 2 == 0 and not any(start < at < end for start, end in ranges):
            line = import_at(code, names, constants, at)
            if line and line not in found:
                found.append(line)
        at = code.find(IMPORT_NAME, at + 1)
    return found


def import_at(code, names, constants, at):
    """The statement whose IMPORT_NAME is there; nothing where it is written in another way."""
    try:
        _, name, start = instruction_before(code, at + 2)
        operation, operand, start = instruction_before(code, start)
        wanted = constants[operand] if operation == LOAD_CONST else ()
        operation, operand, _ = instruction_before(code, start)
        level = operand if operation == LOAD_SMALL_INT else constants[operand]
        return "." * level + names[name] + ":" + ",".join(wanted or ())
    except (IndexError, TypeError):
        return ""


def imports_in(source):
    """The same from source, which is only looked at line by line."""
    found = []
    for plain, name, wanted in TOP_LEVEL.findall(source):
        words = [part.split()[0] for part in wanted.decode().split(",") if part.split()]
        line = (plain or name).decode() + ":" + ",".join(words)
        if line not in found:
            found.append(line)
    return found


class Library:
    """The modules that the base's Python has of itself, found by its own finders."""

    def __init__(self, with_packages):
        self.path = sys.path[1:]  # without this script's folder
        if with_packages:
            self.path += site.getsitepackages()
        self.found = {}
        self.places = {}

    def find(self, name):
        """[the file that is opened for it, its imports, what a package holds], or None."""
        if name not in self.found:
            self.found[name] = self.look_for(name)
        return self.found[name]

    def look_for(self, name):
        parent = name.rpartition(".")[0]
        path = self.path
        if parent:
            if not self.find(parent) or self.places[parent] is None:
                return None
            path = self.places[parent]
        if name in sys.builtin_module_names or FrozenImporter.find_spec(name):
            return None
        try:
            spec = PathFinder.find_spec(name, path)
        except Exception:
            return None
        if spec is None or not spec.origin or spec.loader is None:
            return None
        places = self.places[name] = spec.submodule_search_locations
        holds = None if places is None else sorted(one.name for one in iter_modules(places))
        return [*read_module(spec), holds]

    def close(self, asked):
        """All modules `asked` for and what they import in turn; None for those not there.

        `asked` has by a module's name what is imported from it: that may be modules, too.
        """
        waiting = []
        for name in sorted(asked, reverse=True):
            waiting += [*submodules(name, asked[name]), name]
        seen = set(waiting)
        while waiting:
            name = waiting.pop()
            told = self.find(name)
            wanted = [name.rpartition(".")[0]]
            for line in told[1] if told else ():
                wanted += targets(line, name, told[2] is not None)
            for one in wanted:
                if one and one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return {name: told for name, told in self.found.items() if told or name in asked}


def read_module(spec):
    """[the file that is opened for a module, its imports]."""
    if spec.cached:
        try:
            with open(spec.cached, "rb") as file:
                data = file.read()
            return [spec.cached, imports_of(marshal.loads(data[HEADER_BYTES:]))]
        except (OSError, ValueError, EOFError, TypeError, AttributeError):
            pass
    if not spec.origin.endswith(".py"):
        return [spec.origin, []]
    with open(spec.origin, "rb") as file:
        return [spec.origin, imports_in(file.read())]


def targets(line, name, is_package):
    """The modules that an import statement of module `name` may load, absolute."""
    asked, _, wanted = line.partition(":")
    bare = asked.lstrip(".")
    level = len(asked) - len(bare)
    if level:
        parts = name.split(".")
        parts = parts[: len(parts) - level + (1 if is_package else 0)]
        bare = ".".join(parts + ([bare] if bare else []))
    return [bare, *submodules(bare, wanted.split(","))]


def submodules(name, words):
    return [name + "." + word for word in words if word and word != "*"]
