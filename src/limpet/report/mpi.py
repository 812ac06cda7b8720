"""What `limpet mpi` found, as text, and a host set as TOML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from limpet.core.facts import Libc
from limpet.core.mpi import HostSet, ImageMpi, Library, Pairing, Tasks
from limpet.core.mpi_plan import render_pmi
from limpet.report.text import safe


class _Report(Protocol):
    """`actions.mpi.MpiReport`, which this layer does not import."""

    @property
    def image(self) -> str: ...
    @property
    def mpi(self) -> ImageMpi: ...
    @property
    def libc(self) -> Libc | None: ...
    @property
    def sets(self) -> tuple[HostSet, ...]: ...
    @property
    def pairings(self) -> tuple[Pairing, ...]: ...
    @property
    def slurm(self) -> tuple[str, ...]: ...
    @property
    def tasks(self) -> Tasks | None: ...
    @property
    def chosen(self) -> str: ...
    @property
    def flag(self) -> str: ...


class _Probe(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def met(self) -> bool: ...
    @property
    def title(self) -> str: ...
    @property
    def loaded(self) -> tuple[str, ...]: ...
    @property
    def said(self) -> str: ...


def render_mpi(report: _Report) -> str:
    """The image, the host, the pairs, and what would be chosen."""
    lines = [f"image    {report.image}"]
    lines += [f"         {line}" for line in _image_lines(report.mpi, report.libc)]
    lines += [f"slurm    srun --mpi={'|'.join(report.slurm)}" if report.slurm else "slurm    none"]
    if report.tasks:
        lines.append(
            f"start    task {report.tasks.rank} of {report.tasks.count or '?'} under "
            f"{report.tasks.launcher}, which offers {render_pmi(_offers(report.tasks))}"
        )
    for host, pairing in zip(report.sets, report.pairings, strict=True):
        lines += _host_lines(host, pairing)
    if not report.sets:
        lines.append("host     no MPI library was found (modules that are loaded count)")
    return "\n".join(safe(line) for line in [*lines, _choice(report)]) + "\n"


def _offers(tasks: Tasks) -> list[str]:
    return [kind for kind in tasks.offers if kind != "libpmi"]


def _image_lines(mpi: ImageMpi, libc: Libc | None) -> list[str]:
    lines = [_library(library) for library in mpi.libraries] or ["no MPI library"]
    for consumer in mpi.consumers:
        lines.append(f"{consumer.name} can use {' or '.join(consumer.needs)}")
    lines += [f"but {trouble}" for trouble in mpi.troubles]
    if not mpi.consumers:
        lines.append("nothing in it is linked to MPI")
    return [*lines, f"{libc.family} {libc.version}"] if libc else lines


def _library(library: Library) -> str:
    return f"{library.title} ({library.soname}), speaks {render_pmi(library.pmi)}: {library.path}"


def _host_lines(host: HostSet, pairing: Pairing) -> list[str]:
    lines = [f"host     {host.name}: {_library(host.library)}", f"         by {host.origin}"]
    asked = host.asked.get("GLIBC", "")
    lines += [f"         needs glibc {asked}, takes {len(host.files)} files along"] if asked else []
    verdict = "works with the image" if pairing.works else "does not work with the image"
    lines.append(f"         {verdict}")
    return lines + [f"           {line}" for line in pairing.against]


def _choice(report: _Report) -> str:
    if not report.chosen:
        return "choice   none: no library and launcher fit (--mpi none starts tasks without MPI)"
    whose = "the image's" if report.chosen == "image" else f"the host's {report.chosen}"
    how = f", with srun --mpi={report.flag}" if report.flag else ""
    return f"choice   {whose}{how}"


def render_probes(probes: Sequence[_Probe], sets: Sequence[HostSet]) -> str:
    """For each set that two ranks met with, its TOML; for the others a comment why not."""
    by_name = {host.name: host for host in sets}
    parts = []
    for probe in probes:
        lines = [f"# {probe.name}: {probe.command or 'not started'}"]
        if probe.met:
            lines.append(f"# two ranks met: {probe.title}, {' '.join(probe.loaded)}")
            lines += render_set(by_name[probe.name]).splitlines()
        else:
            lines.append("# two ranks did not meet:")
            lines += [f"#   {line}" for line in probe.said.splitlines()]
        parts.append("\n".join(safe(line) for line in lines) + "\n")
    return "\n".join(parts)


def render_set(host: HostSet) -> str:
    """`[mpi.NAME]` for the configuration."""
    # JSON's strings are TOML's as well.
    name = json.dumps(host.name)
    lines = [f"[mpi.{name}]", f"library = {json.dumps(host.library.path, ensure_ascii=False)}"]
    for key, words in (("binds", host.binds), ("conflicts", host.conflicts)):
        if words:
            lines.append(f"{key} = {json.dumps(list(words), ensure_ascii=False)}")
    if host.variables:
        pairs = (f"{n} = {json.dumps(v, ensure_ascii=False)}" for n, v in host.variables.items())
        lines.append(f"variables = {{ {', '.join(pairs)} }}")
    return "\n".join(lines) + "\n"
