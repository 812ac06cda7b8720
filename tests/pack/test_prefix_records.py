"""What software folders of a cluster say of themselves, and what they need from elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from limpet.core.lock import FoundPackage
from limpet.core.pack import Metadata, Tree, find_outside, find_unlocked
from limpet.tools.prefix_meta import read_metadata
from limpet.tools.prefix_needs import read_needs
from limpet.tools.prefix_scan import scan_tree


def tree_of(folder: Path) -> Tree:
    return Tree(folder=folder, place=str(folder), seen=scan_tree(folder))


def test_an_easybuild_folder(tmp_path: Path) -> None:
    folder = tmp_path / "zlib" / "1.3.1 é"
    records = folder / "easybuild"
    records.mkdir(parents=True)
    (records / "zlib-1.3.1-GCCcore-13.3.0.eb").write_text(
        "easyblock = 'ConfigureMake'\n\nname = 'zlib'\nversion = \"1.3.1\"\n"
        'description = """name = \'other\'"""\n',
        encoding="utf-8",
    )
    (records / "broken.eb").write_text("version = '1'\n", encoding="utf-8")
    (told,) = read_metadata([tree_of(folder)])
    assert told.found == (FoundPackage(name="zlib", version="1.3.1", kind="generic"),)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (
            {"spec": {"nodes": [{"name": "hdf5", "version": "1.14.5"}, {"name": "zlib"}]}},
            (FoundPackage(name="hdf5", version="1.14.5", kind="generic"),),
        ),
        ({"spec": {"nodes": []}}, ()),
        ({"spec": []}, ()),
        (["no object"], ()),
    ],
)
def test_a_spack_folder(tmp_path: Path, spec: object, found: tuple[FoundPackage, ...]) -> None:
    (tmp_path / ".spack").mkdir()
    (tmp_path / ".spack" / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (told,) = read_metadata([tree_of(tmp_path)])
    assert told.found == found


def test_libraries_that_lie_elsewhere(tmp_path: Path) -> None:
    """A real program with search paths: one library beside it, one in another folder."""
    if not (compiler := shutil.which("gcc")):
        pytest.skip("There is no C compiler.")
    folder, other = tmp_path / "my tool", tmp_path / "other"
    for name in (folder / "bin", folder / "lib", other / "lib"):
        name.mkdir(parents=True)

    def build(output: Path, text: str, *flags: str | Path) -> None:
        argv = [compiler, "-x", "c", "-", "-o", output, *flags]
        subprocess.run(argv, input=text, text=True, check=True)

    build(folder / "lib/libown.so", "int own(void) { return 1; }", "-shared", "-fPIC")
    build(other / "lib/libtheirs.so", "int theirs(void) { return 2; }", "-shared", "-fPIC")
    build(
        folder / "bin/tool",
        "int own(void), theirs(void); int main(void) { return own() + theirs(); }",
        *("-L", folder / "lib", "-L", other / "lib", "-xnone", "-lown", "-ltheirs"),
        *("-Wl,-rpath,$ORIGIN/../lib", f"-Wl,-rpath,{other}/lib"),
    )
    library = str(other / "lib/libtheirs.so")
    needs = read_needs([tree_of(folder)], lambda path: False)
    assert needs.elsewhere == {f"{folder}/bin/tool": library}
    assert needs.glibc
    (finding,) = find_outside(Metadata(), needs)
    assert finding.code == "pack/outside-library"
    assert finding.evidence == (f"{folder}/bin/tool → {library}",)
    assert read_needs([tree_of(folder)], lambda path: path == library).elsewhere == {}
    assert read_needs([tree_of(folder), tree_of(other)], lambda path: False).elsewhere == {}


@pytest.mark.parametrize(
    ("direct", "known"),
    [
        (
            {
                "url": "https://bob:secret@example.org/p/demo-1.0.tar.gz",
                "archive_info": {"hashes": {"sha256": "A" * 64}},
            },
            {"url": "https://example.org/p/demo-1.0.tar.gz", "sha256": "a" * 64},
        ),
        (
            {"url": "file:///home/me/demo.whl", "archive_info": {"hash": f"sha256={'b' * 64}"}},
            {"sha256": "b" * 64},
        ),
        (
            {
                "url": "https://example.org/demo.git",
                "vcs_info": {"vcs": "git", "commit_id": "0" * 40},
            },
            {"url": "https://example.org/demo.git", "commit": "0" * 40},
        ),
        ({"url": "file:///home/me/demo", "dir_info": {}}, {}),
        ({"url": 3, "archive_info": "x", "vcs_info": {"commit_id": "main; rm"}}, {"url": "3"}),
        (None, {}),
    ],
)
def test_where_pip_got_a_package_from(
    tmp_path: Path, direct: object, known: dict[str, str]
) -> None:
    info = tmp_path / "lib" / "python3.13" / "site-packages" / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    if direct is not None:
        (info / "direct_url.json").write_text(json.dumps(direct))
    (told,) = read_metadata([tree_of(tmp_path)])
    assert told.found == (
        FoundPackage(name="demo", version="1.0", kind="pypi", installer="pip", **known),
    )
    assert bool(find_unlocked(told.found)) == (not known.keys() & {"sha256", "commit"})
