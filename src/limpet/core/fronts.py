"""Other ways to a folder of launchers: a Jupyter kernelspec and a modulefile, as text."""

from __future__ import annotations

import json
import re

from limpet.core.errors import UsageError


def check_kernel_name(name: str) -> str:
    """The name of the kernel's folder, as Jupyter allows it."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UsageError(f"--kernel {name}: a kernel's name is made of letters, digits, . _ and -.")
    return name.lower()


def render_kernel(root: str, title: str) -> str:
    """The kernelspec (kernel.json): the launcher of Python runs ipykernel in the image."""
    spec = {
        "argv": [f"{root}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"Python ({title})",
        "language": "python",
        "metadata": {"debugger": True},
    }
    return json.dumps(spec, indent=1, ensure_ascii=False) + "\n"


def render_module(root: str, title: str, *, lua: bool) -> str:
    """The modulefile: Lua for Lmod, Tcl for Lmod and Environment Modules."""
    about = f"{title}: programs in an image, by limpet"
    if lua:
        return (
            f"help({_lua(about)})\n"
            f"whatis({_lua(f'Name: {title}')})\n"
            f"whatis({_lua(f'Description: {about}')})\n"
            f"prepend_path('PATH', {_lua(f'{root}/bin')})\n"
        )
    return (
        "#%Module1.0\n"
        f"proc ModulesHelp {{ }} {{ puts stderr {_tcl(about)} }}\n"
        f"module-whatis {_tcl(about)}\n"
        f"prepend-path PATH {_tcl(f'{root}/bin')}\n"
    )


def _lua(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n") + '"'


def _tcl(text: str) -> str:
    # Tcl reads its files in the session's encoding, whatever that is.
    escaped = re.sub(r'(["\\$\[\]{};])', r"\\\1", text).replace("\n", "\\n")
    return '"' + re.sub(r"[^\x00-\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
