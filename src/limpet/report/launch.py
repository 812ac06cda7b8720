"""A launch as a command line to copy, and as an explanation."""

from __future__ import annotations

from collections.abc import Mapping

from limpet.core.launch import Launch
from limpet.report.text import quote, safe


def render_command(launch: Launch, environment: Mapping[str, str]) -> str:
    """The exact command, for bash, as seen from `environment`."""
    words = [f"-u {quote(name)}" for name in sorted(environment) if name not in launch.env]
    words += [
        quote(f"{name}={value}")
        for name, value in sorted(launch.env.items())
        if environment.get(name) != value
    ]
    command = " ".join(quote(word) for word in launch.argv)
    lines = [" ".join(["mkdir -p", *map(quote, launch.folders)])] if launch.folders else []
    lines += [" ".join(["touch", *map(quote, launch.files)])] if launch.files else []
    lines.append(" ".join(["env", *words, command]) if words else command)
    return "\n".join(lines) + "\n"


def _mpi(launch: Launch) -> str:
    plan = launch.mpi
    if plan.loads:
        whose = f"the host's ({plan.host})" if plan.choice == "host" else "the image's"
        return f"{whose}: {plan.title}, {plan.loads}"
    found = launch.image.facts.mpi if launch.image.facts else None
    if found is None or found.library is None:
        return "none"
    return f"the image's: {found.library.title}, {found.library.path}"


def render_explanation(launch: Launch, loaded: str = "") -> str:
    """Which policies are in force, and what became of every variable.

    `loaded` is the MPI library that was seen in a program of the image.
    """
    lines = [
        f"runtime      {launch.argv[len(launch.before)]} ({launch.runtime})",
        f"home         {launch.home}",
        f"gpu          {launch.gpu or 'none'}",
        f"mpi          {_mpi(launch)}",
        *((f"mpi loads    {loaded}",) if loaded else ()),
        f"starts in    {launch.pwd}",
        f"reads ahead  {launch.prefetch.reason}",
    ]
    lines += [
        f"bind         {mount.source} → {mount.target}{'' if mount.writable else ' (read-only)'}"
        for mount in launch.mounts
    ]
    lines += [f"note         {note}" for note in launch.notes]
    lines.append(f"variables    {launch.variables}")
    lines += [f"  set        {name}={value}" for name, value in sorted(launch.added.items())]
    for passes, word in ((True, "passed"), (False, "dropped")):
        lines += [
            f"  {word:<10} {verdict.name}: {verdict.reason}"
            for verdict in launch.verdicts
            if verdict.passes is passes
        ]
    return "\n".join(safe(line) for line in lines) + "\n"
