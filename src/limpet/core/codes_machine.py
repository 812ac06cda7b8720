"""What `limpet doctor` may find: codes LMP001 to LMP4xx."""

from __future__ import annotations

from limpet.core.code import Code, code

_LOOKING = (
    code(
        "LMP001",
        "Something did not answer in time",
        "Looking at a folder, or asking a program, took longer than the limit. A file system whose "
        "server is gone makes every program wait that touches it, and such a wait cannot always be "
        "ended.",
        "Try `ls` on the folder by hand. Where it hangs as well, tell the site's support which "
        "folder on which machine it is.",
    ),
    code(
        "LMP002",
        "Something could not be looked at",
        "A file or folder may not be read by this user, or a program gave an answer that limpet "
        "does not understand. The rest of the report does not depend on it.",
        "Nothing has to be done, unless the evidence names a file that should be readable.",
    ),
)

_RUNTIME = (
    code(
        "LMP101",
        "No container runtime",
        "Neither `apptainer` nor `singularity` is in `PATH`: no image can be started here.",
        "Load the site's module for it, or ask for Apptainer to be installed. Login nodes without "
        "it are common; `limpet doctor --node` looks at a compute node.",
    ),
    code(
        "LMP102",
        "The container runtime cannot be used",
        "It is too old, or does not say which version it is.",
        "Load a newer module, or name a newer one in `LIMPET_RUNTIME`.",
    ),
    code(
        "LMP103",
        "No user namespaces",
        "The kernel allows this user no user namespaces, and the runtime has no setuid rights: it "
        "cannot make a container.",
        "An administrator has to set `user.max_user_namespaces` (and, on older Debian kernels, "
        "`kernel.unprivileged_userns_clone`), or install the runtime with setuid rights.",
    ),
    code(
        "LMP104",
        "/dev/fuse cannot be used",
        "Without setuid rights the runtime mounts images through FUSE. Where it cannot, it unpacks "
        "the whole image at each start.",
        "An administrator has to load the kernel module `fuse` and give `/dev/fuse` mode 666, as "
        "udev's rules do.",
    ),
    code(
        "LMP105",
        "No squashfuse",
        "Without setuid rights the runtime mounts images with squashfuse. Where it is missing, it "
        "unpacks the whole image at each start.",
        "Ask for the package `squashfuse`.",
    ),
    code(
        "LMP106",
        "An old squashfuse",
        "Versions before 0.2 read with one thread and keep one block: imports from an image are "
        "several times slower than they could be.",
        "Ask for squashfuse 0.2 or newer, or for the one that Apptainer brings itself.",
    ),
    code(
        "LMP107",
        "Writable overlay files cannot be mounted",
        "A plain user's ext3 overlay needs `fuse2fs` and `fuse-overlayfs`.",
        "Ask for the packages `fuse2fs` and `fuse-overlayfs`, or use a folder: "
        "`limpet overlay create --dir`.",
    ),
    code(
        "LMP108",
        "No range of user ids",
        "Bases that limpet makes itself (`debian:`), and `apt` or `post` steps in a build, need "
        "`newuidmap` and a range for this user in `/etc/subuid` and `/etc/subgid`.",
        "Ask for the package `uidmap` and for a range, or use another base and no such step.",
    ),
    code(
        "LMP109",
        "mksquashfs cannot write zstd",
        "limpet needs no mksquashfs. `apptainer build` does, and images packed with gzip start "
        "slower than those packed with zstd.",
        "Ask for squashfs-tools 4.4 or newer, or build with limpet.",
    ),
)

_DISKS = (
    code(
        "LMP201",
        "A disk is nearly full",
        "A build needs about three times the size of its packages; caches and personal packages "
        "need room as well.",
        "Make room, or name another folder (`LIMPET_CACHE_DIR`, `LIMPET_BUILD_DIR`, "
        "`LIMPET_STATE_DIR`).",
    ),
    code(
        "LMP202",
        "A disk has hardly any inodes left",
        "Each file needs an inode. Environments outside of images use tens of thousands.",
        "Remove environments and package caches that are not needed any more; an image is one "
        "file.",
    ),
    code(
        "LMP203",
        "A quota is nearly used up",
        "What you may store, in bytes or in files, is used to nine tenths or more. Programs then "
        "fail with “Disk quota exceeded”.",
        "Make room, ask for more, or name folders elsewhere for limpet's caches.",
    ),
    code(
        "LMP204",
        "A folder cannot be written",
        "limpet keeps its cache, its builds and images' personal packages there.",
        "Name a folder that can be written.",
    ),
    code(
        "LMP205",
        "A folder is in memory",
        "What is written to a `tmpfs` takes memory, which counts against a job's limit.",
        "Name a folder on a disk.",
    ),
    code(
        "LMP206",
        "TMPDIR names no folder",
        "Programs that trust `TMPDIR` fail. limpet drops it from the environment of images.",
        "Set it to a folder that exists, or unset it.",
    ),
    code(
        "LMP207",
        "Others can write into limpet's folder",
        "Whoever can write there can put code into your programs.",
        "Take the right from them.",
        fix="`chmod go-w` on the folder, where it is yours.",
    ),
    code(
        "LMP208",
        "Programs cannot be started from a folder",
        "It is mounted `noexec`: builds that compile or run something there fail.",
        "Name another folder in `LIMPET_BUILD_DIR`.",
    ),
    code(
        "LMP209",
        "Rests of builds that were killed",
        "Partial files that no running limpet holds.",
        "Remove them.",
        fix="Removes the files that no process holds.",
    ),
)

_ACCOUNT = (
    code(
        "LMP301",
        "conda in the start-up files of the shell",
        "Each shell, also those of batch jobs, starts conda's Python and puts its programs in "
        "front "
        "of all others. limpet lays a file of its own over these in images with `--home isolated`; "
        "jobs outside images are not spared.",
        "Remove the block, and load conda where it is needed.",
    ),
    code(
        "LMP302",
        "Packages in ~/.local",
        "A Python in an image that is not in a virtual environment takes packages from `~/.local` "
        "of the host before its own, where its version (3.12, say) is the same. limpet keeps them "
        "out; `apptainer run` does not.",
        "Start images with limpet, or set `PYTHONNOUSERSITE=1`, or move the packages away.",
    ),
    code(
        "LMP303",
        "Variables that reach into images",
        "Variables that steer Python, conda or the loader of the host are handed into containers "
        "by Apptainer. limpet drops them.",
        "Start images with limpet, or unset the variables.",
    ),
    code(
        "LMP304",
        "A CA bundle that is not there",
        "A variable names a file of certificates that cannot be read. Programs that trust it can "
        "make no TLS connection.",
        "Correct or unset the variable.",
    ),
    code(
        "LMP305",
        "A proxy in one spelling only",
        "Programs differ in whether they read `http_proxy` or `HTTP_PROXY`; curl reads only the "
        "former for http.",
        "Set both spellings.",
    ),
)

_CLUSTER = (
    code(
        "LMP401",
        "The GPU driver does not fit itself",
        "The driver's kernel module and its libraries are of different versions: no program finds "
        "a GPU until the machine has been restarted.",
        "Tell the site's support.",
    ),
    code(
        "LMP402",
        "A GPU without its driver's libraries",
        "There are device files of a GPU, and no driver library that could be handed into an "
        "image.",
        "Ask for the driver to be installed completely.",
    ),
    code(
        "LMP403",
        "Slurm starts no MPI",
        "`srun --mpi=list` names neither `pmix` nor `pmi2`: each rank of an MPI program would "
        "think "
        "that it is alone.",
        "Ask for Slurm's PMI plugins, or start with `mpirun`.",
    ),
    code(
        "LMP404",
        "The compute node could not be looked at",
        "`srun` gave no report of the node.",
        "Give the options that your site wants, behind `--node`: "
        "`limpet doctor --node --partition=debug --account=NAME`.",
    ),
    code(
        "LMP405",
        "The compute node differs",
        "What works here may not work there.",
        "Build where it works, and set folders and modules in the job's script.",
    ),
)

MACHINE: tuple[Code, ...] = (*_LOOKING, *_RUNTIME, *_DISKS, *_ACCOUNT, *_CLUSTER)
