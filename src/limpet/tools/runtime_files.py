"""What a container runtime expects in an image that once was an OCI image: `/.singularity.d`.

The names and what they are for are Apptainer's (its `build` makes the same ones); the text is ours.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from limpet.formats.squashfs import Entry

_FOLDERS = ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sys", "srv", "usr", "var")
_FILES = ("etc/hosts", "etc/resolv.conf", "etc/passwd", "etc/group")
_LINKS = {
    ".exec": ".singularity.d/actions/exec",
    ".run": ".singularity.d/actions/run",
    ".shell": ".singularity.d/actions/shell",
    ".test": ".singularity.d/actions/test",
    "environment": ".singularity.d/env/90-environment.sh",
    "singularity": ".singularity.d/runscript",
}
# Apptainer sets what --env and APPTAINERENV_ ask for right after the script of this very name
# (internal/pkg/util/fs/files/action_scripts.go): without it they are lost.
_LAST = """#!/bin/sh
case ":${LD_LIBRARY_PATH:-}:" in
*:/.singularity.d/libs:*) ;;
*) LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs" ;;
esac
export LD_LIBRARY_PATH
"""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def mount_points() -> Iterator[Entry]:
    """What a runtime mounts things on. They go first, so that the image's own win."""
    for name in _FOLDERS:
        yield Entry(name, "dir", mode=0o700 if name == "root" else 0o755)
    for name in ("tmp", "var/tmp"):
        yield Entry(name, "dir", mode=0o1777)
    for name in _FILES:
        yield Entry(name, "file", mode=0o644, content=b"")


def singularity_files(config: Mapping[str, Any]) -> Iterator[Entry]:
    """`/.singularity.d` from an image's config (the `config` of an OCI image configuration)."""
    for name in ("", "/actions", "/env", "/libs"):
        yield Entry(f".singularity.d{name}", "dir", mode=0o755)
    env = config.get("Env") or []
    texts = {
        "actions/exec": _action('exec "$@"'),
        "actions/run": _action('exec /.singularity.d/runscript "$@"'),
        "actions/shell": _action('exec /bin/sh "$@"'),
        "actions/start": _action('exec /.singularity.d/startscript "$@"'),
        "actions/test": _action("exit 0"),
        "env/10-docker2singularity.sh": render_environment(env),
        "env/90-environment.sh": "#!/bin/sh\n# For whoever builds on this image.\n",
        "env/99-base.sh": _LAST,
        "runscript": render_runscript(config.get("Entrypoint") or [], config.get("Cmd") or []),
        "startscript": '#!/bin/sh\nexec "$@"\n',
    }
    for name, text in texts.items():
        content = text.encode("utf-8", "surrogateescape")
        yield Entry(f".singularity.d/{name}", "file", mode=0o755, content=content)
    labels = json.dumps(config.get("Labels") or {}, indent=2, sort_keys=True) + "\n"
    yield Entry(".singularity.d/labels.json", "file", mode=0o644, content=labels.encode())
    for name, target in _LINKS.items():
        yield Entry(name, "symlink", mode=0o777, target=target)


def _action(last: str) -> str:
    return (
        "#!/bin/sh\n"
        "for script in /.singularity.d/env/*.sh; do\n"
        '    if [ -f "$script" ]; then . "$script"; fi\n'
        "done\n"
        f"{last}\n"
    )


def render_environment(env: Sequence[str]) -> str:
    """The image's variables as a script; one set from outside (`--env`) wins, but for PATH."""
    lines = ["#!/bin/sh"]
    for line in env:
        name, _, value = line.partition("=")
        if not _NAME.fullmatch(name):
            continue  # no shell can export it
        quoted = shlex.quote(value)
        # Unquoted in an assignment, which splits no words: the shell inside Apptainer does not
        # take every value in "${A:-…}".
        lines.append(f"{name}={quoted if name == 'PATH' else f'${{{name}:-{quoted}}}'}")
        lines.append(f"export {name}")
    return "\n".join(lines) + "\n"


def render_runscript(entrypoint: Sequence[str] | str, command: Sequence[str] | str) -> str:
    """What `apptainer run` does: the entry point with the given arguments, or with the image's."""
    lines = ["#!/bin/sh"]
    if command:
        lines.append(f'if [ "$#" -eq 0 ]; then set -- {_quoted(command)}; fi')
    if entrypoint:
        lines.append(f'set -- {_quoted(entrypoint)} "$@"')
    lines += ['if [ "$#" -eq 0 ]; then set -- /bin/sh; fi', 'exec "$@"']
    return "\n".join(lines) + "\n"


def _quoted(words: Sequence[str] | str) -> str:
    return shlex.join(["/bin/sh", "-c", words] if isinstance(words, str) else words)
