"""The Python sources of an image as files on the host, for editors that read them themselves."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from limpet.core.seen import ImageSeen
from limpet.formats.image_tree import ImageTree, Member, opened_tree

_SITE = re.compile(r"(?:.*/)?(?:site|dist)-packages")
_READ = re.compile(r".*\.pyi?|(?:.*/)?py\.typed")


def write_sources(image: ImageSeen, folder: Path) -> int:
    """What an editor reads of an image's packages, as `import` would find it; how many files.

    Of a compiled module without a stub an editor wants to know that it is there: an empty file.
    """
    folder.mkdir()
    count = 0
    with opened_tree(image) as tree:
        for name, member in _chosen(tree, image.facts.prefix if image.facts else ""):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as out:
                if not name.endswith(".so"):
                    with member.open() as file:
                        shutil.copyfileobj(file, out, 1 << 20)
            count += 1
    return count


def _chosen(tree: ImageTree, prefix: str) -> Iterator[tuple[str, Member]]:
    """By their path in their folder of packages; what an earlier folder has hides a later one's."""
    own = f"{prefix.strip('/')}/"
    sites = [path for path, one in tree.members.items() if one.kind == "dir" and _is_site(path)]
    taken: set[str] = set()
    for site in sorted(sites, key=lambda path: (not path.startswith(own), path)):
        here = set()
        for path, member in tree.below(site):
            name = path[len(site) + 1 :]
            top = name.partition("/")[0]
            wanted = bool(_READ.fullmatch(name)) or name.endswith(".so")
            if member.kind == "file" and wanted and top not in taken:
                here.add(top)
                yield name, member
        taken |= here


def _is_site(path: str) -> bool:
    return _SITE.fullmatch(path) is not None and not _SITE.fullmatch(path.rpartition("/")[0])
