"""Build one image with cotainr's Python API; run by the interpreter that has cotainr.

    cotainr_build.py BASE IMAGE COMMAND…

cotainr's own command line knows only conda; pip goes through its sandbox, as its API offers.
Which compression `singularity build` uses comes from APPTAINER_MKSQUASHFS_ARGS, and what is bound
into the sandbox from APPTAINER_BIND: both are inherited by the processes that cotainr starts.
"""

import sys
from pathlib import Path

from cotainr.container import SingularitySandbox  # type: ignore[import-not-found]


def main(base: str, image: str, *commands: str) -> None:
    """Unpack the base, install into it, pack it."""
    with SingularitySandbox(base_image=base) as sandbox:
        for command in commands:
            sandbox.run_command_in_container(cmd=command)
        sandbox.add_metadata()
        sandbox.build_image(path=Path(image))


if __name__ == "__main__":
    main(*sys.argv[1:])
