"""`limpet report`: look at an image, start it to time its imports, gather what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from limpet import __version__
from limpet.actions.check import check_imports
from limpet.actions.check_image import check_image
from limpet.actions.inspect import inspect_image
from limpet.actions.launch import make_ready, plan_start
from limpet.core.contents import Contents
from limpet.core.dependencies import Graph, plan_graph
from limpet.core.difference import plan_difference
from limpet.core.doctor import sort_findings
from limpet.core.errors import ExistsError, LimpetError, SpaceError, UsageError
from limpet.core.findings import Finding
from limpet.core.importtime import ImportTime, parse_importtime
from limpet.core.inspection import Inspection
from limpet.core.page import ImageReport, Report
from limpet.core.seen import Request
from limpet.tools import process
from limpet.tools.files import written_beside

MOST_MODULES = 24
_PYTHON = 'exec "$(command -v python3 || command -v python || echo python3)" "$@"'
_EACH = """import sys
for name in {names!r}:
    try:
        __import__(name)
    except BaseException as error:
        print(f"{{name}}: {{type(error).__name__}}: {{error}}", file=sys.stderr)
"""

Found = tuple[tuple[Finding, ...] | None, tuple[str, ...]]  # findings, and what was not checked
Find = Callable[[str, Sequence[str], float, str], Found]


def find_problems(image: str, modules: Sequence[str], timeout_s: float, config_file: str) -> Found:
    """What `limpet check` finds about an image: the one place where a report asks.

    The image is read, and `modules` are imported in it; without any nothing is started. Findings
    are None where nothing could be checked.
    """
    checks: list[Callable[[], tuple[Finding, ...]]] = [lambda: check_image(image).findings]
    if modules:
        limits = partial(check_imports, timeout_s=timeout_s, config_file=config_file)
        checks.append(lambda: limits(image, modules).findings)
    found: list[Finding] = []
    notes = []
    for check in checks:
        try:
            found += check()
        except (LimpetError, OSError) as error:
            notes.append(f"Not checked: {_reason(error)}")
    return sort_findings(found) if len(notes) < len(checks) else None, tuple(notes)


def _reason(error: LimpetError | OSError) -> str:
    return f"{error.what} {error.why}".strip() if isinstance(error, LimpetError) else str(error)


def check_output(output: Path, *, force: bool) -> None:
    """Refuse a place for the page that cannot be written, before anything is started."""
    if not output.parent.is_dir():
        raise SpaceError(f"The folder {output.parent} does not exist.", now="Make it first.")
    if output.is_dir():
        raise ExistsError(f"{output} is a folder.", now="Name a file: -o report.html.")
    if output.exists() and not force:
        raise ExistsError(f"{output} is there already.", now="Use --force to replace it.")


def write_page(text: str, output: Path, *, force: bool) -> None:
    """Write the page beside its place and give it its name."""
    with written_beside(output, replace=force) as file:
        file.write(text.encode())


def make_report(
    images: Sequence[str],
    *,
    statement: str = "",
    starts: bool = True,
    timeout_s: float = 300,
    config_file: str = "",
    find: Find = find_problems,
) -> Report:
    """Everything about one image, or about two and their difference.

    `statement` is what is timed; empty: the import of each package that was asked for. An image
    that does not start is reported as it lies there, with a note.
    """
    if timeout_s <= 0:
        raise UsageError(f"--timeout {timeout_s:g}: it must be more than 0 seconds.")
    seen = [inspect_image(image, contents=True) for image in images]
    look = partial(
        _look,
        statement=statement,
        starts=starts,
        timeout_s=timeout_s,
        config=config_file,
        find=find,
    )
    return Report(
        limpet=__version__,
        images=tuple(look(one) for one in seen),
        difference=plan_difference(*seen) if len(seen) == 2 else None,
    )


def _look(
    seen: Inspection, *, statement: str, starts: bool, timeout_s: float, config: str, find: Find
) -> ImageReport:
    contents = seen.contents or Contents()
    graph = plan_graph(contents)
    modules = choose_modules(contents, graph) if starts else ()
    notes = [f"Not read: {note}" for note in contents.unreadable]
    imports: ImportTime | None = None
    try:
        if starts and (statement or modules):
            imports = measure_imports(seen.path, statement, modules, timeout_s, config)
    except LimpetError as error:
        notes.append(f"Not started: {_reason(error)}")
        modules = ()
    findings, unchecked = find(seen.path, modules, timeout_s, config)
    return ImageReport(
        seen=seen, graph=graph, imports=imports, findings=findings, notes=(*notes, *unchecked)
    )


def choose_modules(contents: Contents, graph: Graph) -> tuple[str, ...]:
    """What the packages that were asked for (else those that none requires) are imported by.

    Of several modules in one package the one of its own name; largest packages first.
    """
    wanted = graph.asked or dict.fromkeys(graph.loose, "")
    chosen: list[str] = []
    for package in contents.packages:
        if package.name in wanted and package.modules:
            own = package.name.replace("-", "_")
            same = [name for name in package.modules if name.lower() == own]
            chosen += same or package.modules[:1]
    return tuple(dict.fromkeys(chosen))[:MOST_MODULES]


def measure_imports(
    image: str, statement: str, modules: Sequence[str], timeout_s: float, config_file: str
) -> ImportTime:
    """Start the image twice as `limpet run` would, with a home of its own, and time the second.

    HostError where it does not end in `timeout_s`.
    """
    code = statement or _EACH.format(names=tuple(modules))
    command = ("/bin/sh", "-c", _PYTHON, "sh", "-X", "importtime", "-c", code)
    request = Request(command=command, home="private", verbose=False)
    launch = plan_start(image, request, config_file=config_file)
    make_ready(launch)
    walls = []
    for _ in range(2):
        began = time.monotonic()
        done = process.run(launch.argv, env=launch.env, timeout_s=timeout_s)
        walls.append(time.monotonic() - began)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return ImportTime(
        statement=statement or "import " + ", ".join(modules),
        spans=parse_importtime(done.stderr),
        first_wall_s=walls[0],
        wall_s=walls[1],
        failure="\n".join(said)[-2000:] if done.code or not statement else "",
    )
