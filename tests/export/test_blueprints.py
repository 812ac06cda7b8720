"""What stands in a Dockerfile and a definition file, for locks of all kinds."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.core import recipe as recipes
from limpet.core.blueprint import Site, plan_blueprint, written
from limpet.core.container_file import render_definition, render_dockerfile
from limpet.core.errors import LockError, RecipeError, UsageError
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.recipe import Recipe
from limpet.core.reference import parse_reference
from tests.conda_image.locks import conda_package

DIGEST = f"sha256:{'b' * 64}"
BASE = parse_reference(f"docker://python:3.13-slim@{DIGEST}")
WHEEL = LockedPackage(
    name="tabulate",
    version="0.9.0",
    artifact=Artifact(
        kind="wheel",
        filename="tabulate-0.9.0-py3-none-any.whl",
        url="https://files.pythonhosted.org/packages/tabulate-0.9.0-py3-none-any.whl",
        sha256="5" * 64,
    ),
)
LOCK = Lock(
    base=LockedBase(reference="docker://python:3.13-slim", digest=DIGEST, arch="x86_64"),
    python="3.13.5",
    interpreter="/usr/local/bin/python3",
    packages=(WHEEL,),
)
HERE = Path("/project")
SITE = Site(folder=HERE, lock_folder=HERE, recipe_folder=HERE, has_pip=True, has_apt=True)
SOURCE = msgspec.structs.replace(
    WHEEL,
    name="docopt",
    artifact=Artifact(
        kind="sdist",
        filename="docopt-0.6.2.tar.gz",
        url="https://files.pythonhosted.org/packages/docopt-0.6.2.tar.gz",
        sha256="6" * 64,
    ),
)
POST = "#!/bin/sh\nif true; then\n  echo 'it is' # \\\nfi\n"


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


def both(
    lock: Lock = LOCK, recipe: Recipe | None = None, site: Site = SITE, **given: Any
) -> tuple[str, str]:
    recipe = recipe or Recipe(env={"A": "1"})
    plan = plan_blueprint(lock, recipe, given.pop("base", BASE), site, **given)
    return render_dockerfile(plan), render_definition(plan)


def test_wheels_need_one_stage_and_no_compiler() -> None:
    docker, definition = both()
    assert docker.count("FROM ") == 1
    assert f"FROM docker.io/library/python:3.13-slim@{DIGEST}\n" in docker
    assert f"From: docker.io/library/python@{DIGEST}\n" in definition
    for text in (docker, definition):
        assert f"'tabulate==0.9.0 --hash=sha256:{'5' * 64}' \\\n" in text
        assert "/usr/local/bin/python3 -m pip --python /opt/env/bin/python install" in text
        assert "build-essential" not in text
        assert "--system-site-packages" in text
    assert "\nUSER user\n" in docker
    assert docker.index("useradd") < docker.index("tabulate==")  # what changes least comes first


def test_a_lock_that_is_older_than_its_recipe_is_told() -> None:
    for text in both(site=changed(SITE, is_stale=True)):
        assert "\n# The recipe has changed since it was locked" in text
    for text in both():
        assert "has changed" not in text


def test_a_base_without_pip_lends_one_that_does_not_stay() -> None:
    for text in both(site=changed(SITE, has_pip=False)):
        assert "python3 -m venv /opt/pip" in text
        assert "rm -rf /opt/pip " in text


def test_sources_are_built_in_a_stage_of_their_own() -> None:
    lock = changed(LOCK, packages=(SOURCE, WHEEL), apt=("libfoo1=1.2-3",))
    docker, definition = both(lock)
    first, build, last = docker.split("FROM ")[1:]
    assert first.startswith(f"docker.io/library/python:3.13-slim@{DIGEST} AS system\n")
    assert "libfoo1=1.2-3" in first
    assert build.startswith("system AS build\n")
    assert "build-essential" in build
    assert "docopt==0.6.2" not in last
    assert last.startswith("system\n")
    assert "COPY --from=build /opt/env /opt/env\n" in last
    build, last = definition.split("Bootstrap: docker\n")[1:]
    assert "Stage: build" in build
    assert "build-essential" in build
    assert "libfoo1=1.2-3" in build
    assert "libfoo1=1.2-3" in last
    assert "build-essential" not in last
    assert "%files from build\n    /opt/env /opt/env\n" in last


def test_every_kind_of_source_is_named_exactly() -> None:
    def package(name: str, **artifact: Any) -> LockedPackage:
        return LockedPackage(name=name, version="1", artifact=Artifact(**artifact))

    url = "https://example.org/w/own-1-py3-none-any.whl"
    packages = (
        package("own", kind="wheel", filename="own-1-py3-none-any.whl", url=url, sha256="7" * 64),
        package("code", kind="vcs", filename="", url="git+https://e.org/c.git", commit="c" * 40),
        package("tree", kind="directory", filename="", path="src/tree", sha256="8" * 64),
        package("near", kind="wheel", filename="a.whl", path="wheels/a b.whl", sha256="9" * 64),
        changed(WHEEL, index="https://example.org/simple"),
    )
    docker, definition = both(changed(LOCK, packages=packages))
    for text in (docker, definition):
        hashed, others = text.split("--require-hashes")
        assert f"'own @ {url} --hash=sha256:{'7' * 64}'" in hashed
        assert f"near @ file:///opt/packages/a%20b.whl --hash=sha256:{'9' * 64}" in hashed
        assert "'--extra-index-url https://example.org/simple'" in hashed
        assert f"'code @ git+https://e.org/c.git@{'c' * 40}'" in others
        assert "'tree @ file:///opt/packages/tree'" in others
        assert " git" in text[: text.index("-m venv")]
    assert 'COPY ["wheels/a b.whl", "/opt/packages/a b.whl"]\n' in docker
    assert "COPY src/tree /opt/packages/tree\n" in docker
    assert '    "wheels/a b.whl" "/opt/packages/a b.whl"\n' in definition
    outside = changed(SITE, folder=HERE / "elsewhere")
    with pytest.raises(UsageError, match="cannot copy"):
        both(changed(LOCK, packages=packages), site=outside)


@pytest.mark.real  # a shell reads it
def test_a_post_script_comes_through_as_it_is(tmp_path: Path) -> None:
    lock = changed(LOCK, post_sha256=hashlib.sha256(POST.encode()).hexdigest())
    recipe = Recipe(image=recipes.Image(post=POST))
    docker, definition = both(lock, recipe)
    for text in (docker, definition):
        assert "    '  echo '\"'\"'it is'\"'\"' # \\' \\\n" in text
    place = tmp_path / "post"
    script = "\n".join(written(f"'{place}'", POST.rstrip("\n").split("\n")))
    subprocess.run(["sh", "-c", script], check=True)
    assert place.read_text() == POST
    with pytest.raises(LockError, match="not at hand"):
        both(lock, Recipe(image=recipes.Image(post="echo other")))


def test_conda_comes_from_an_explicit_list() -> None:
    conda = (conda_package("python"), conda_package("numpy"))
    lock = changed(LOCK, conda=conda, interpreter="/opt/env/bin/python")
    docker, definition = both(lock)
    for text in (docker, definition):
        listed = re.findall(r"'(\S+)#sha256:0{64}'", text)
        assert {url.rpartition("/")[2] for url in listed} == {one.filename for one in conda}
        assert "micromamba create --yes --prefix /opt/env" in text
        assert "CONDA_PREFIX" in text
        assert "VIRTUAL_ENV=/opt/env" not in text
    assert "COPY --from=conda /opt/env /opt/env\n" in docker
    assert docker.index("USER root") < docker.index("micromamba create")


def test_mpi_is_brought_where_it_is_asked_for() -> None:
    mpi4py = changed(WHEEL, name="mpi4py")
    docker, definition = both(changed(LOCK, packages=(mpi4py,)), mpi="mpich")
    library = "/usr/lib/x86_64-linux-gnu/libmpich.so.12"
    assert f'ENV MPI4PY_LIBMPI="{library}"\n' in docker
    assert f"export MPI4PY_LIBMPI={library}\n" in definition
    assert "        mpich \\\n" in docker
    assert "MPI4PY_LIBMPI" not in both(mpi="openmpi")[0]
    with pytest.raises(UsageError, match="no apt-get"):
        both(site=changed(SITE, has_apt=False), mpi="mpich")


@pytest.mark.real  # a shell reads it
def test_variables_with_odd_values() -> None:
    docker, definition = both(recipe=Recipe(env={"ODD": "a \"b\" \\ $c 'd'"}))
    assert 'ENV ODD="a \\"b\\" \\\\ \\$c \'d\'"\n' in docker
    (line,) = [one.strip() for one in definition.split("\n") if "export ODD" in one]
    shell = subprocess.run(
        ["sh", "-c", f'{line}; printf %s "$ODD"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == "a \"b\" \\ $c 'd'"
    with pytest.raises(RecipeError, match="line break"):
        both(recipe=Recipe(env={"ODD": "a\nb"}))


@pytest.mark.parametrize(
    ("reference", "bootstrap"),
    [
        ("./base.sif", "Bootstrap: localimage\nFrom: ./base.sif\n"),
        ("oci:layout:one", "Bootstrap: oci\nFrom: layout:one\n"),
        ("library://a/b:c", "Bootstrap: library\nFrom: //a/b:c\n"),
        (f"oras://e.org/x@{DIGEST}", f"Bootstrap: oras\nFrom: e.org/x@{DIGEST}\n"),
    ],
)
def test_other_bases_are_for_definition_files_only(reference: str, bootstrap: str) -> None:
    plan = plan_blueprint(LOCK, Recipe(), parse_reference(reference), SITE)
    assert bootstrap.replace("//a", "a") in render_definition(plan)
    with pytest.raises(UsageError, match="cannot start from"):
        render_dockerfile(plan)
