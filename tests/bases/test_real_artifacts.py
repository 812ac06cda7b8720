"""SIFs that lie elsewhere: oras:// in a registry, library:// at a server that speaks its API."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from limpet.actions.bases import fetch_base, resolve_base
from limpet.core.errors import BaseError, FetchError, LockError
from limpet.tools.apptainer import Runtime
from tests.bases.server import Answer, serve

pytestmark = pytest.mark.real
ARCH = os.uname().machine


@pytest.fixture
def sif(address: str, cache: Path) -> Path:
    base = resolve_base(f"docker://{address}/shapes/plain", cache=cache, arch=ARCH)
    return fetch_base(base, cache=cache)


def test_a_sif_in_a_registry(
    sif: Path, address: str, cache: Path, tmp_path: Path, runtime: Runtime
) -> None:
    reference = f"oras://{address}/sifs/plain:1"
    argv = [str(runtime.path), "push", "--no-https", str(sif), reference]
    subprocess.run(argv, check=True, capture_output=True, env=os.environ | {"HOME": str(tmp_path)})
    base = resolve_base(reference, cache=tmp_path, arch=ARCH)
    assert fetch_base(base, cache=tmp_path).read_bytes() == sif.read_bytes()
    with pytest.raises(BaseError, match="holds no SIF"):
        wrong = resolve_base(f"oras://{address}/shapes/slim", cache=tmp_path, arch=ARCH)
        fetch_base(wrong, cache=tmp_path)


def library_answers(data: bytes) -> dict[str, Answer | list[Answer]]:
    """What `apptainer pull library://…` asks, as seen in its requests."""
    services = ("libraryAPI", "keystoreAPI", "tokenAPI")
    described = {"id": "1", "hash": f"sha256.{hashlib.sha256(data).hexdigest()}"}
    described |= {"size": len(data), "uploaded": True, "architecture": "amd64"}  # type: ignore[dict-item]
    documents = {
        "/assets/config/config.prod.json": {name: {"uri": "http://HOST"} for name in services},
        "/version": {"data": {"apiVersion": "2.0.0-alpha.2", "version": "1"}},
        "/v1/images/a/b/c:1": {"data": described},
    }
    found: dict[str, Answer | list[Answer]] = {
        path: (200, {}, json.dumps(document).encode()) for path, document in documents.items()
    }
    return found | {"/v1/imagefile/a/b/c:1": (200, {}, data)}


def test_a_library(sif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CONFIGDIR", str(tmp_path))
    answers = library_answers(sif.read_bytes())
    with serve(answers) as (address, asked):
        remote = {"URI": f"http://{address}", "System": False, "Exclusive": False, "Insecure": True}
        text = json.dumps({"Active": "test", "Remotes": {"test": remote}})
        (tmp_path / "remote.yaml").write_text(text)
        (tmp_path / "remote.yaml").chmod(0o600)
        base = resolve_base("library://a/b/c:1", cache=tmp_path / "one", arch=ARCH)
        assert fetch_base(base, cache=tmp_path / "one").read_bytes() == sif.read_bytes()
        count = len(asked)
        assert resolve_base("library://a/b/c:1", cache=tmp_path / "one", arch=ARCH) == base
        assert len(asked) == count
        assert fetch_base(base, cache=tmp_path / "two").read_bytes() == sif.read_bytes()
        answers |= library_answers(sif.read_bytes() + b"changed")
        with pytest.raises(LockError, match="no longer"):
            fetch_base(base, cache=tmp_path / "three")
        with pytest.raises(FetchError, match="cannot be pulled"):
            resolve_base("library://a/b/none:1", cache=tmp_path / "one", arch=ARCH)
