"""The channel that the tests share, made once per cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.conda import channel as channels


@pytest.fixture(scope="session")
def channel(cache_dir: Path) -> Path:
    """The large channel, with a working Python; for tests marked `real`."""
    from limpet.tools import files
    from tests import images

    made_by = hashlib.sha256(Path(channels.__file__).read_bytes()).hexdigest()[:12]
    folder = cache_dir / f"conda-channel-{made_by}"
    with files.held(cache_dir / "conda-channel.lock"):
        if not folder.exists():
            partial = cache_dir / f"conda-channel-{made_by}.partial"
            channels.make_channel(partial, images.debian_tar(cache_dir))
            partial.replace(folder)
    return folder
