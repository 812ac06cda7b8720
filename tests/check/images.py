"""Images as the tests of `check` need them: a tree of made-up files in a squashfs or a folder."""

from __future__ import annotations

from pathlib import Path

from limpet.actions.check_image import read_for_check
from limpet.core.finding_codes import CODES
from limpet.core.findings import Finding
from limpet.core.image_contents import ImageContents
from limpet.core.image_judge import judge_contents
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools.images import read_image

SITE = "opt/env/lib/python3.13/site-packages"
Tree = dict[str, str | bytes]


def environment(*, system: bool = False) -> Tree:
    """A virtual environment on a Python in /usr."""
    answer = "true" if system else "false"
    return {
        "usr/bin/python3.13": b"\x7fELF",
        "opt/env/pyvenv.cfg": f"home = /usr/bin\ninclude-system-site-packages = {answer}\n",
        "opt/env/bin/python3.13 -> /usr/bin/python3.13": "",
        f"{SITE}/": "",
    }


def package(name: str, version: str, *requires: str, site: str = SITE, **files: str) -> Tree:
    """An installed distribution; `files` are its modules."""
    info = f"{site}/{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    members: Tree = {f"{site}/{name}/{stem}.py": text for stem, text in files.items()}
    names = [path.removeprefix(f"{site}/") for path in members]
    return {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\n",
        f"{info}/RECORD": "".join(f"{path},,\n" for path in names),
    }


def squashfs(path: Path, tree: Tree) -> Path:
    """A squashfs with these files; a name `a -> b` is a link, one that ends in `/` a folder."""
    entries: dict[str, Entry] = {"": Entry("", "dir", mode=0o755)}
    for name, content in tree.items():
        place, arrow, target = name.partition(" -> ")
        folder = place.rstrip("/") if place.endswith("/") else place.rpartition("/")[0]
        parts = folder.split("/") if folder else []
        for number in range(1, len(parts) + 1):
            above = "/".join(parts[:number])
            entries.setdefault(above, Entry(above, "dir", mode=0o755))
        if arrow:
            entries[place] = Entry(place, "symlink", mode=0o777, target=target)
        elif not place.endswith("/"):
            data = content.encode() if isinstance(content, str) else content
            entries[place] = Entry(place, "file", content=data)
    with path.open("w+b") as out:
        write_squashfs(out, [entries[name] for name in sorted(entries)])
    return path


def sandbox(root: Path, tree: Tree) -> Path:
    """The same as a folder, with what makes a folder an image."""
    for name, content in {**tree, "bin/sh": "#!"}.items():
        place, arrow, target = name.partition(" -> ")
        path = root / place
        (path if place.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        elif not place.endswith("/"):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def contents(path: Path) -> ImageContents:
    return read_for_check(read_image(str(path)))


def findings(path: Path) -> dict[str, Finding]:
    """What is found in an image, by code (of several the last)."""
    found = list(judge_contents(contents(path), "image.sif"))
    assert all(finding.code in CODES for finding in found)
    return {finding.code: finding for finding in found}
