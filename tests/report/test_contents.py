"""What is read from images: packages of three kinds, layers, and images that mean harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limpet.actions.check_image import check_image
from limpet.actions.contents import read_contents
from limpet.actions.inspect import compare_images, explain_package, inspect_image
from limpet.actions.report import choose_modules, make_report
from limpet.core.contents import Contents, Software
from limpet.core.dependencies import plan_graph
from limpet.core.errors import ImageError, UsageError
from limpet.tools.images import read_image
from tests.report.trees import SITE, package, write_image

DPKG = b"""Package: bash
Status: install ok installed
Version: 5.2
Architecture: amd64
Depends: libc6 (>= 2.36), debianutils

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: amd64
"""


def contents_of(path: Path) -> Contents:
    return read_contents(read_image(str(path)))


def by_name(contents: Contents) -> dict[str, Software]:
    return {one.name: one for one in contents.software}


def test_packages_of_pip_conda_and_the_system(tmp_path: Path) -> None:
    meta = {
        "name": "zlib-ng",
        "version": "2.2",
        "license": "Zlib",
        "depends": ["libgcc >=13"],
        "files": ["lib/libz-ng.so", f"{SITE.removeprefix('opt/env/')}/zz-2.dist-info/METADATA"],
    }
    image = write_image(
        tmp_path / "a.sif",
        {
            **package("alpha", "1.5", "License-Expression: MIT", "Requires-Dist: beta>=2"),
            **package("beta", "2.0", "Classifier: License :: OSI Approved :: BSD License"),
            "opt/env/conda-meta/zlib-ng-2.2-0.json": json.dumps(meta).encode(),
            "opt/env/lib/libz-ng.so": b"z" * 5000,
            f"{SITE}/zz-2.dist-info/METADATA": b"Name: zz\nVersion: 2\nSummary: fast\n\n",
            "var/lib/dpkg/status": DPKG,
            "var/lib/dpkg/info/bash.list": b"/.\n/bin/bash\n/usr/share/doc/bash/copyright\n",
            "usr/bin/bash": b"b" * 3000,
            "usr/share/doc/bash/copyright": b"GPL",
            "bin": "usr/bin",
            "usr/local/stray": b"??",
        },
    )
    found = by_name(contents_of(image))
    alpha = found["alpha"]
    assert (alpha.manager, alpha.version, alpha.license) == ("pip", "1.5", "MIT")
    assert (alpha.files, alpha.modules, alpha.requires) == (6, ("alpha",), ("beta>=2",))
    assert found["beta"].license == "BSD License"
    conda = found["zlib-ng"]
    assert (conda.manager, conda.license, conda.provides) == ("conda", "Zlib", ("zz",))
    assert (conda.files, conda.summary) == (3, "fast")
    assert "zz" not in found and "gone" not in found
    # /bin is a link: the list names /bin/bash, the file lies in /usr/bin
    assert (found["bash"].manager, found["bash"].files, found["bash"].size_bytes) == (
        "system",
        2,
        3003,
    )
    assert found["/usr/local"].manager == "other"
    whole = contents_of(image)
    assert sum(one.files for one in whole.software) == whole.layers[0].files
    assert sum(one.size_bytes for one in whole.software) == whole.layers[0].size_bytes


def test_a_layer_lies_over_the_root(tmp_path: Path) -> None:
    image = write_image(
        tmp_path / "a.sif",
        {"etc/a": b"1", "gone/b/c": b"2", "gone2": b"3", **package("alpha", size=10)},
        {f"{SITE}/alpha/__init__.py": b"#" * 700, **package("beta"), "gone": None, "gone2": None},
    )
    contents = contents_of(image)
    assert [layer.name for layer in contents.layers] == ["root", "layer 1"]
    found = by_name(contents)
    assert found["alpha"].size_bytes > 700 and found["alpha"].files == 6 and "beta" in found
    assert not any(one.name.startswith("/gone") or one.name == "/" for one in contents.software)


def test_a_sandbox(tmp_path: Path) -> None:
    box = tmp_path / "box"
    (box / ".singularity.d").mkdir(parents=True)
    for path, data in package("alpha").items():
        (box / path).parent.mkdir(parents=True, exist_ok=True)
        (box / path).write_bytes(data)
    (box / "out").symlink_to("/etc")
    secret = tmp_path / "secret"
    secret.write_text("Name: stolen\nVersion: 1\n\n")
    stolen = box / SITE / "stolen-1.dist-info"
    stolen.mkdir()
    (stolen / "METADATA").symlink_to(secret)
    found = by_name(contents_of(box))
    assert found["alpha"].manager == "pip"
    assert "stolen" not in found and not any(name.startswith("/out") for name in found)


def test_why(tmp_path: Path) -> None:
    image = write_image(
        tmp_path / "a.sif",
        {
            **package("alpha", "1", "Requires-Dist: beta>=2"),
            **package("beta", "2", "Requires-Dist: gamma", 'Requires-Dist: alpha; extra == "x"'),
            **package("gamma"),
            **package("loose"),
        },
        requested=("alpha>=1",),
    )
    graph, gamma = explain_package(str(image), "Gamma")
    assert gamma.name == "gamma"
    assert graph.asked == {"alpha": ">=1"} and graph.loose == ("loose",)
    with pytest.raises(UsageError, match="no package named gama") as caught:
        explain_package(str(image), "gama")
    assert "gamma" in caught.value.now
    contents = inspect_image(str(image), contents=True).contents
    assert contents
    assert choose_modules(contents, plan_graph(contents)) == ("alpha",)


def test_two_images(tmp_path: Path) -> None:
    first = write_image(
        tmp_path / "a.sif",
        {**package("alpha", "1", "License: MIT"), **package("old"), **package("same")},
    )
    second = write_image(
        tmp_path / "b.sif",
        {**package("alpha", "2", "License: GPL-3.0"), **package("new"), **package("same")},
    )
    told = compare_images(str(first), str(second))
    assert {one.name: one.kind for one in told.changes} == {
        "alpha": "changed",
        "old": "removed",
        "new": "added",
    }
    assert [(one.license_before, one.license_after) for one in told.relicensed] == [
        ("MIT", "GPL-3.0")
    ]
    assert (told.new_licenses, told.gone_licenses) == (("GPL-3.0",), ("MIT",))
    assert not compare_images(str(first), str(first)).changes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\0",
        b"Version: 1\n\n",
        b"Name: " + b"x" * 5000 + b"\nRequires-Dist: " + b"(" * 5000,
        b"Name: x\nLicense: " + b"long " * 5000,
        b"Name: =?utf-8?q?" + b"=" * 100,
    ],
)
def test_metadata_that_means_harm(tmp_path: Path, data: bytes) -> None:
    image = write_image(tmp_path / "a.sif", {f"{SITE}/x-1.dist-info/METADATA": data})
    contents = inspect_image(str(image), contents=True).contents
    assert contents
    assert plan_graph(contents).edges == ()
    assert all(len(one.license) <= 80 for one in contents.software)


def test_lists_that_mean_harm(tmp_path: Path) -> None:
    image = write_image(
        tmp_path / "a.sif",
        {
            **package("alpha"),
            f"{SITE}/b-1.dist-info/METADATA": b"Name: b\nVersion: 1\n\n",
            f"{SITE}/b-1.dist-info/RECORD": (
                b"../../../../../../../../etc/passwd,,\nalpha/__init__.py,,\n"
                b'"unclosed\n\0,,\n' + b"x" * 200_000
            ),
            "opt/env/conda-meta/list.json": b"[" * 100_000,
            "opt/env/conda-meta/text.json": b'{"name": 1, "files": {"a": 1}, "depends": 3}',
            "var/lib/dpkg/status": b"Package: x\nStatus: install ok installed\n\n" * 50,
        },
    )
    contents = contents_of(image)
    assert by_name(contents)["alpha"].size_bytes >= 1000  # what b claims is alpha's already
    assert sum(one.files for one in contents.software) == contents.layers[0].files


def test_an_image_that_cannot_be_looked_into(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.sif", package("alpha"))
    data = bytearray(image.read_bytes())
    at = data.index(b"hsqs")
    data[at + 64 : at + 72] = b"\xff" * 8
    image.write_bytes(data)
    seen = inspect_image(str(image), contents=True)
    assert seen.facts and seen.contents and seen.contents.unreadable
    with pytest.raises(ImageError, match="cannot be looked into"):
        compare_images(str(image), str(image))


def test_a_report_says_what_check_finds(tmp_path: Path) -> None:
    # what makes a folder with packages an environment
    python = {"opt/env/bin/python3.13": b"", **package("alpha", "1", "Requires-Dist: missing>=2")}
    image = write_image(tmp_path / "a.sif", python)
    image.chmod(0o666)
    report = make_report([str(image)], starts=False).images[0]
    assert report.findings is not None and report.imports is None
    assert {"LMP501", "LMP704", "LMP705"} <= {one.code for one in report.findings}
    assert report.findings[0].what == "alpha 1 needs missing, which is not installed."
    assert set(check_image(str(image)).findings) == set(report.findings)


def test_a_report_says_what_could_not_be_checked(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.sif", package("alpha"))
    image.write_bytes(image.read_bytes().replace(b"hsqs", b"????"))
    report = make_report([str(image)], starts=False).images[0]
    assert report.findings is None
    assert any(note.startswith("Not checked: ") for note in report.notes)


def test_a_package_has_one_size_for_check_and_for_report(tmp_path: Path) -> None:
    members = {"opt/env/bin/python3.13": b"", **package("alpha", size=5000), **package("beta")}
    members[f"{SITE}/alpha/tests/__init__.py"] = b"t" * 300
    record = f"{SITE}/alpha-1.0.dist-info/RECORD"
    members[record] += b"alpha/tests/__init__.py,,\n"
    image = write_image(tmp_path / "a.sif", members)
    found = by_name(contents_of(image))
    checked = {one.name: one for one in check_image(str(image)).packages}
    for name in ("alpha", "beta"):
        ours, theirs = found[name], checked[name]
        assert (ours.size_bytes, ours.files) == (theirs.size_bytes, theirs.files)
        assert ours.useless_bytes == theirs.useless_bytes == (300 if name == "alpha" else 0)
