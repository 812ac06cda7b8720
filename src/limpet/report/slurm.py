"""What staging did, in one line."""

from __future__ import annotations

from limpet.core.slurm import Staged
from limpet.report.text import format_size, safe


def render_staged(staged: Staged) -> str:
    """One line, also where the shared file stays in use; a further one for launchers that do."""
    if staged.fallback:
        line = f"limpet: The shared file {staged.image} is used: {staged.fallback}."
    else:
        nodes = "1 node" if staged.nodes == 1 else f"{staged.nodes} nodes"
        size = format_size(staged.size_bytes)
        done = f"was copied in {staged.elapsed_s:.1f} s" if staged.copied else "is there already"
        line = f"limpet: {staged.copy} ({size}) {done}, on {nodes}."
        if staged.apart:
            names = ", ".join(one.node for one in staged.apart if one.node) or "others"
            line += f" The shared file is used on {names}: {staged.apart[0].reason}."
    lines = [line]
    if staged.launchers_fallback:
        why = staged.launchers_fallback
        lines.append(f"limpet: The shared launchers in {staged.launchers} are used: {why}.")
    return "".join(f"{safe(line)}\n" for line in lines)


def render_path(staged: Staged) -> str:
    """What a script is to use from now on: the folder of launchers, else the image."""
    return f"{staged.launchers or staged.copy or staged.image}\n"
