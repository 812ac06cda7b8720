"""The errors that users meet: what failed, why, what to do now, and a stable exit code.

Exit codes are part of the public interface (docs/reference/exit-codes.md). `run` and `shell` pass
the program's own exit code through and use 125 for every failure of limpet's own, as `env(1)`,
`timeout(1)` and container runtimes do.
"""

from __future__ import annotations

import errno

RUN_FAILED_CODE = 125


class LimpetError(Exception):
    """Something a user can act on.

    `what` is one sentence: what failed. `why` is the cause as far as it is known (may be several
    lines, for instance a solver's explanation). `now` is what to do next.
    """

    code = 1

    def __init__(self, what: str, *, why: str = "", now: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.now = now

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.now) if line)


class UsageError(LimpetError):
    """The command line or a configuration file asks for something that does not exist."""

    code = 2


class RecipeError(LimpetError):
    """A description (requirements, pyproject, limpet.toml …) cannot be read or is contradictory."""

    code = 3


class LockError(LimpetError):
    """No set of packages fits, or a lock does not fit its recipe, platform or base."""

    code = 4


class BaseError(LimpetError):
    """A base image cannot be had, read, or used for this recipe."""

    code = 5


class FetchError(LimpetError):
    """Something from the network (or, offline, from the cache) could not be had, or was damaged."""

    code = 6


class BuildError(LimpetError):
    """A package, an `apt` or `post` step, or the image itself could not be built."""

    code = 7


class ImageError(LimpetError):
    """A file is no image, is damaged, or is not for this machine."""

    code = 8


class HostError(LimpetError):
    """This machine lacks something: a program, a version, a kernel feature, a permission."""

    code = 9


class SpaceError(LimpetError):
    """Not enough bytes or inodes, or a folder that cannot be written."""

    code = 10


class ExistsError(LimpetError):
    """The output is there already and `--force` was not given."""

    code = 11


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def space_error(error: OSError, place: object = None) -> SpaceError | None:
    """The SpaceError for a disk or quota that is full; None for every other error."""
    if error.errno not in _FULL:
        return None
    there = place or error.filename or "A file"
    return SpaceError(
        f"{there} cannot be written.", why=f"{error.strerror}.", now="Make room, or go elsewhere."
    )


def no_image(path: object) -> ImageError:
    """The ImageError for a path where nothing is."""
    return ImageError(
        f"There is no image {path}.",
        now="Check the path, or build it: limpet build … -o image.sif.",
    )


def gone_error() -> HostError:
    """The HostError for a working folder that was removed under our feet."""
    return HostError("The working folder does not exist any more.", now="Change to another one.")
