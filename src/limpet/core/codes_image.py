"""What `limpet check` may find: codes LMP5xx to LMP8xx."""

from __future__ import annotations

from limpet.core.code import Code, code

_PACKAGES = (
    code(
        "LMP501",
        "A requirement is not installed",
        "A package says in its metadata that it needs another, which is not in the image.",
        "Add it to the recipe and build again.",
    ),
    code(
        "LMP502",
        "A requirement has the wrong version",
        "A package needs another version of a package that is installed.",
        "Let limpet solve the environment anew: it finds versions that fit.",
    ),
    code(
        "LMP503",
        "A package is there twice",
        "Two versions of one package lie in folders of one Python; the first on its path is used.",
        "Leave one of them out of the recipe, or build on a base without it.",
    ),
    code(
        "LMP504",
        "A conda package misses another",
        "What conda's records name as needed is not installed, or in another version.",
        "Let the solver run again: `limpet lock`, then `limpet build`.",
    ),
    code(
        "LMP505",
        "Modules without byte code",
        "In a read-only image, modules without a `.pyc` are compiled again by each process at each "
        "start.",
        "Build with limpet, which compiles all; or run `python -m compileall -q "
        "--invalidation-mode unchecked-hash` in the build.",
    ),
    code(
        "LMP506",
        "Byte code that is not used",
        "A `.pyc` that holds the time of its source is ignored when that time was changed, as "
        "tools "
        "that set all times to zero do.",
        "Compile with `--invalidation-mode unchecked-hash`.",
    ),
    code(
        "LMP507",
        "The image sets variables of Python",
        "`PYTHONPATH` or `PYTHONHOME`, set for every program in the image, put packages of one "
        "Python before those of another.",
        "Remove it from the image's environment; packages belong into the environment's own "
        "folder.",
    ),
    code(
        "LMP508",
        "Packages of ~/.local get in",
        "The image's Python is not in a virtual environment and `PYTHONNOUSERSITE` is not set in "
        "it: with `apptainer run`, packages of the user's home come before its own.",
        "Start it with limpet, or set `PYTHONNOUSERSITE=1` in the image.",
    ),
    code(
        "LMP509",
        "Metadata that cannot be read",
        "A package's METADATA is missing, too large, or not what the standard says.",
        "Install the package again, or tell its makers.",
    ),
)

_LIBRARIES = (
    code(
        "LMP601",
        "A shared library is missing",
        "A compiled module needs a library that is nowhere in the image: its import fails.",
        "Add the Debian package that has the library to the recipe (`[image] apt`), or a wheel "
        "that "
        "brings it.",
    ),
    code(
        "LMP602",
        "A shared library is off the loader's path",
        "The library is in the image, in a folder where the loader does not look. That works only "
        "if the package loads it first, as some do.",
        "If the import fails: set `LD_LIBRARY_PATH` in the recipe's `[env]`, or install the "
        "package "
        "that owns the library into the system's folders.",
    ),
    code(
        "LMP603",
        "A library that the host has to bring",
        "MPI's library is not in the image. It works only where the host's is bound in, of the "
        "same "
        "family.",
        "Add an MPI to the recipe, or start it where the site's MPI is handed in.",
    ),
    code(
        "LMP604",
        "The image's C library is too old",
        "A compiled module asks for symbols of a newer glibc than the image has.",
        "Build on a newer base, or take an older version of the package.",
    ),
)

_IMAGE = (
    code(
        "LMP701",
        "The image is for another machine",
        "Its programs are for another kind of processor; or it is built on a Python of the host, "
        "and that Python is not here, or is another one.",
        "Build it on, or for, a machine like this one.",
    ),
    code(
        "LMP702",
        "GPU and image do not fit",
        "What the image's packages need is not what this machine's driver gives.",
        "Build with versions that fit the driver: `limpet build --system NAME` knows it.",
    ),
    code(
        "LMP703",
        "MPI of several families",
        "The image has libraries of more than one MPI family. Which one a program gets depends on "
        "the loader's path.",
        "Keep the one that the site's launcher starts.",
    ),
    code(
        "LMP704",
        "The image is not signed",
        "Nothing tells whether the file is what its maker made.",
        "Sign it: `apptainer sign image.sif`.",
    ),
    code(
        "LMP705",
        "Others can change the image",
        "Whoever can write the file can put code into your programs.",
        "Take the right from them.",
        fix="`chmod go-w` on the file, where it is yours.",
    ),
    code(
        "LMP711",
        "A known vulnerability",
        "An advisory of the given database names the installed version.",
        "Build with a version that the advisory calls fixed.",
    ),
    code(
        "LMP721",
        "Tests of packages",
        "Test suites that no program of the image needs.",
        "Leave them out with `[files]`, or live with them: they cost space, not time.",
    ),
    code(
        "LMP722",
        "Static libraries",
        "`.a` files serve compilers only.",
        "Leave them out, unless something is compiled in the image.",
    ),
    code(
        "LMP723",
        "The same library several times",
        "Shared libraries with the same content lie in several places. limpet's builds store such "
        "content once; others' images hold it several times, and memory does in any case.",
        "Nothing has to be done; a conda environment shares them, wheels cannot.",
    ),
    code(
        "LMP724",
        "Caches of package managers",
        "Downloads of pip, conda or apt that stayed in the image.",
        "Build with limpet, or clean in the same step of the definition file that installs.",
    ),
    code(
        "LMP731",
        "Odd names",
        "Names of files hold control characters, which could move a terminal's cursor. limpet "
        "writes them out.",
        "Do not list the image's files with programs that print names as they are.",
    ),
    code(
        "LMP732",
        "A part of the image could not be read",
        "It is damaged, larger than is sensible, or of a kind that limpet does not read.",
        "Fetch the image again, if it is damaged.",
    ),
)

_IMPORTS = (
    code(
        "LMP801",
        "An import needs to write into the image",
        "It fails in the read-only image and works where it can write.",
        "Use the cure that the finding proposes: a variable, `[warm]`, `[files]`, or an overlay.",
    ),
    code(
        "LMP802",
        "An import wants to write into the image",
        "It does without, but what it would keep there is made anew in every process.",
        "Use the cure that the finding proposes.",
    ),
    code(
        "LMP803",
        "An import writes into the home",
        "With `--home isolated` or `private` that is this image's own folder.",
        "Nothing has to be done.",
    ),
    code(
        "LMP804",
        "An import does not end",
        "It may wait for a network, a lock or a device.",
        "Try with a longer `--timeout`, and where it should run (`srun`).",
    ),
    code(
        "LMP805",
        "An import crashes",
        "Native code crashed: often a library of another version, or an instruction that this "
        "processor does not have.",
        "Look at findings on libraries first; then build on another base or with other versions.",
    ),
    code(
        "LMP806",
        "An import fails",
        "It fails in the same way where it can write.",
        "The evidence is the end of what it said; the cure names what is missing, where it is "
        "known.",
    ),
)

IMAGE: tuple[Code, ...] = (*_PACKAGES, *_LIBRARIES, *_IMAGE, *_IMPORTS)
