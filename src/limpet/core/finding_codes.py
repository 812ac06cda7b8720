"""The codes of findings: stable, each with a page of the documentation made from these tables.

LMP0xx looking itself · 1xx the container runtime · 2xx disks · 3xx the account · 4xx GPUs, MPI and
Slurm · 5xx an image's packages · 6xx its libraries · 7xx image and machine, safety, size · 8xx
imports.
"""

from __future__ import annotations

from limpet.core.code import Code
from limpet.core.codes_image import IMAGE
from limpet.core.codes_machine import MACHINE

CODES: dict[str, Code] = {one.code: one for one in (*MACHINE, *IMAGE)}
