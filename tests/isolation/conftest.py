"""The launch tests' small images and throw-away homes."""

from tests.launch.conftest import (
    foreign_sif,
    layer_squashfs,
    limpet_sif,
    person,
    root_squashfs,
    work,
)

__all__ = ["foreign_sif", "layer_squashfs", "limpet_sif", "person", "root_squashfs", "work"]
