"""Packages that a user adds to an image whose Python is conda's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conda.channel import Served
from tests.conftest import Limpet

pytestmark = pytest.mark.real


def test_personal_packages_are_seen(
    limpet: Limpet, channel: Served, tmp_path: Path, make_wheel: Callable[..., Path]
) -> None:
    image = tmp_path / "x.sif"
    words = ("build", "--conda", "greeter", "--channel", channel.url, "-o", image)
    done = limpet(*words, "--base", "debian:trixie")
    assert done.returncode == 0, done.stderr
    wheel = make_wheel({"mine/__init__.py": b"VALUE = 'mine'\n"}, name="mine")
    done = limpet("pip", image, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = "import mine, greeter; print(mine.VALUE, greeter.__version__)"
    ran = limpet("run", image, "python", "-c", text)
    assert ran.stdout == "mine 2.0\n", ran.stderr
