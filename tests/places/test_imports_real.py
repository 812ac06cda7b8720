"""`check --imports` and the usual cures, with the real Apptainer, as a plain user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limpet.tools import process
from tests.conftest import Limpet
from tests.places.conftest import build

pytestmark = pytest.mark.real

PACKAGES = "/opt/env/lib/python3.13/site-packages"
IMPORT = "import hypothetical_gpu_lib as h; print(h.enabled)"
KERNELS = "import hypothetical_kernels"


def check(
    limpet: Limpet, image: Path, *words: str, code: int = 1, **env: str
) -> dict[str, dict[str, Any]]:
    """The findings by the module in them."""
    done = limpet("check", image, "--imports", "--json", *words, env=env)
    assert done.returncode == code, done.stderr
    findings = [f for f in json.loads(done.stdout)["findings"] if f["code"] >= "LMP8"]
    return {finding["what"].split()[1]: finding for finding in findings}


def test_what_imports_do(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    found = check(limpet, image, "--timeout", "8", LIMPET_CACHE_DIR=str(tmp_path))
    codes = {name.removeprefix("hypothetical_"): f["code"] for name, f in found.items()}
    assert codes == {
        "gpu_lib": "LMP801",
        "kernels": "LMP801",
        "quiet_writer": "LMP802",
        "crashes": "LMP805",
        "hangs": "LMP804",
        "fails": "LMP806",
        "home_writer": "LMP803",
        "native": "LMP802",
    }
    needs = found["hypothetical_gpu_lib"]
    assert f"refused  {PACKAGES}/hypothetical_gpu_lib/config.ini" in needs["evidence"]
    assert "Read-only file system" in needs["evidence"][-1]
    assert '[warm]\nimports = ["hypothetical_gpu_lib"]' in needs["cure"]
    assert f'[files]\n"config.ini" = "{PACKAGES}/hypothetical_gpu_lib/config.ini"' in needs["cure"]
    # written anew at each import: baking it in would not help
    cure = found["hypothetical_kernels"]["cure"]
    assert "--bind FOLDER_OF_YOURS:/opt/hypothetical_gpu_cache " in cure
    # what no Python code opens is seen in the layer
    assert found["hypothetical_native"]["evidence"] == ["written  /opt/native"]
    assert "about to die" in found["hypothetical_crashes"]["evidence"]
    assert found["hypothetical_crashes"]["what"].endswith("signal 6.")
    assert "waiting" in found["hypothetical_hangs"]["evidence"]
    assert found["hypothetical_fails"]["cure"] == "Add to the description: 'no_such_thing'"
    assert found["hypothetical_home_writer"]["evidence"] == ["/.home_writer"]
    assert (tmp_path / "tmp").is_dir()
    assert not list((tmp_path / "tmp").glob("check-*"))


def test_named_packages_in_words(limpet: Limpet, image: Path, home: Path) -> None:
    done = limpet("check", image, "--imports", "hypothetical-fine", "hypothetical_home_writer")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("2 imports with Python 3.13.5: all work.\n")
    assert list(home.glob(".home_writer")) == []
    absent = limpet("check", image, "--imports", "nowhere_at_all")
    assert absent.returncode == 1 and "No module named 'nowhere_at_all'" in absent.stdout
    assert limpet("check", image, "hypothetical-fine").returncode == 2
    assert limpet("check", image, "--imports", "--timeout", "0").returncode == 2


def test_where_no_folder_can_be_laid_over(
    image: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limpet.actions import check as action

    monkeypatch.setattr(action._Run, "can_layer", lambda self: False)
    report = action.check_imports(
        str(image), ["hypothetical_gpu_lib"], timeout_s=20, cache_dir=str(cache_dir)
    )
    assert not report.layered
    assert [finding.code for finding in report.findings] == ["LMP801"]


def test_a_foreign_image(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    """The same file system without limpet's description in it."""
    from limpet.formats import sif

    with image.open("rb") as file:
        root = sif.root_partition(sif.read_sif(file))
        file.seek(root.offset)
        (tmp_path / "foreign.sqfs").write_bytes(file.read(root.size_bytes))
    found = check(limpet, tmp_path / "foreign.sqfs", "hypothetical_gpu_lib")
    assert "limpet overlay create" in found["hypothetical_gpu_lib"]["cure"]


def test_an_image_without_python(limpet: Limpet, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "root"
    for name in ("bin", "tmp", "proc", "sys", "dev", "etc", "var/tmp", "opt"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/sh", root / "bin/sh")
    done = limpet("check", root, "--imports")
    assert done.returncode in (8, 9) and "could not be asked" in done.stderr, done.stderr


# ---- the three usual ways, and [warm] ------------------------------------------------------------


def test_without_help_it_fails(limpet: Limpet, image: Path) -> None:
    done = limpet("run", image, "python", "-c", IMPORT)
    assert done.returncode == 1 and "Read-only file system" in done.stderr


def test_prestaged(limpet: Limpet, tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "config.ini").write_text("[settings]\ngpu_enabled = staged\n")
    more = f'[files]\n"config.ini" = "{PACKAGES}/hypothetical_gpu_lib/config.ini"\n'
    image = build(tmp_path, cache_dir, "hypothetical_gpu_lib", more=more)
    done = limpet("run", image, "python", "-c", IMPORT)
    assert done.stdout == "staged\n", done.stderr
    assert check(limpet, image, "hypothetical_gpu_lib", code=0) == {}


def test_warm(limpet: Limpet, tmp_path: Path, cache_dir: Path) -> None:
    more = '[warm]\nimports = ["hypothetical_gpu_lib"]\n'
    image = build(tmp_path, cache_dir, "hypothetical_gpu_lib", more=more)
    done = limpet("run", image, "python", "-c", IMPORT)
    assert done.stdout == "made at import\n", done.stderr


def test_bound(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    own = tmp_path / "gpu cache"
    own.mkdir()
    words = ("run", "--bind", f"{own}:/opt/hypothetical_gpu_cache", image, "python", "-c", KERNELS)
    done = limpet(*words)
    assert done.returncode == 0, done.stderr
    first = (own / "kernels").read_text()
    assert first.startswith("compiled by")
    assert limpet(*words).returncode == 0
    # and where the page that many find has it: a folder bound below /tmp
    place = f"/tmp/hypothetical-{tmp_path.name}"
    below_tmp = limpet("run", "--bind", f"{own}:{place}", image, "cat", f"{place}/kernels")
    assert below_tmp.stdout.startswith("compiled by"), below_tmp.stderr
    process.run(["rmdir", place])


def test_overlaid(limpet: Limpet, image: Path) -> None:
    assert limpet("overlay", "create", image, "--size", "16M").returncode == 0
    words = ("run", "--overlay", "default", image, "python", "-c", f"{IMPORT}; {KERNELS}")
    done = limpet(*words)
    assert done.stdout == "made at import\n", done.stderr
    kept = limpet("run", "--overlay", "default:ro", image, "python", "-c", IMPORT)
    assert kept.stdout == "made at import\n", kept.stderr


# ---- caches --------------------------------------------------------------------------------------

SHOW = "import os; open(os.environ['NUMBA_CACHE_DIR'] + 'x', 'w')"


def test_caches_in_a_job_are_node_local(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    local = tmp_path / "node disk"
    local.mkdir()
    job = {"SLURM_JOB_ID": "7", "SLURM_TMPDIR": str(local)}
    for policy in ("isolated", "private", "none"):
        done = limpet("run", "--home", policy, image, "python", "-c", SHOW, env=job)
        assert done.returncode == 0, done.stderr
        (written,) = local.rglob("numbax")
        assert (local / written.relative_to(local).parts[0]).stat().st_mode & 0o777 == 0o700
        written.unlink()
    own = limpet("run", "-e", "NUMBA_CACHE_DIR=/tmp/mine", image, "env", env=job).stdout
    assert "NUMBA_CACHE_DIR=/tmp/mine\n" in own
    shown = limpet("run", "--explain", image, "true", env=job).stdout
    assert "set        NUMBA_CACHE_DIR=/.limpet/home/.cache/node-local/numba" in shown
    assert f"bind         {local}/limpet-" in shown


def test_numba_and_matplotlib(limpet: Limpet, tmp_path: Path, home: Path) -> None:
    (tmp_path / "requirements.in").write_text("numba\nmatplotlib\n")
    built = limpet("build", "requirements.in", "--base", "debian:trixie", "-o", "n.sif")
    assert built.returncode == 0, built.stderr
    (tmp_path / "job.py").write_text(
        "import numba, matplotlib.font_manager\n"
        "@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
        "print(twice(21), twice.stats.cache_path)\n"
    )
    done = limpet("run", "n.sif", "python", "job.py")
    assert done.stdout.startswith("42 /.limpet/home/.cache/node-local/numba"), done.stderr
    kept = {path.name.split("-")[0] for path in home.rglob(".cache/**/*") if path.is_file()}
    assert "fontlist" in kept
    assert not (home / ".cache").exists() and not (home / ".config/matplotlib").exists()
