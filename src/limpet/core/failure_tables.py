"""Messages of failed programs that users meet, and limpet's answer to each.

`source` is where the message was seen, or what its program says of it.
"""

from __future__ import annotations

from limpet.core.failure import Failure

_PACKAGES = (
    Failure(
        name="numba cache",
        pattern=r"cannot cache function .*: no locator available",
        answer="numba finds no folder for its compiled functions: "
        "add --env NUMBA_CACHE_DIR=/tmp/numba.",
        example="RuntimeError: cannot cache function 'f': no locator available for "
        "file '/opt/x.py'",
        source="https://github.com/numba/numba/issues/5566",
    ),
    Failure(
        name="matplotlib folder",
        pattern=r"Matplotlib created a temporary (?:config/)?cache directory at",
        answer="matplotlib's folder cannot be written: use --home isolated, "
        "or --env MPLCONFIGDIR=/tmp/matplotlib.",
        example="Matplotlib created a temporary cache directory at /tmp/matplotlib-x because the "
        "default path (/home/u/.config/matplotlib) is not a writable directory",
        source="https://github.com/matplotlib/matplotlib/pull/15933",
    ),
    Failure(
        name="numpy 1 and 2",
        pattern=r"compiled using NumPy 1\.x cannot be run in",
        answer="a package was compiled for NumPy 1: put numpy<2 into the description, "
        "or a newer version of that package.",
        example="A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.0 as it "
        "may crash.",
        source="https://github.com/jupyter/notebook/issues/7522",
    ),
    Failure(
        name="numpy size",
        pattern=r"numpy\.\w+ size changed, may indicate binary incompatibility",
        answer="a package was compiled for another numpy: lock and build again so that both fit "
        "(limpet check IMAGE shows what does not).",
        example="ValueError: numpy.dtype size changed, may indicate binary incompatibility. "
        "Expected 96 from C header, got 88 from PyObject",
        source="https://github.com/numpy/numpy/issues/11628",
    ),
    Failure(
        name="circular import",
        pattern=r"partially initialized module '(?P<module>[\w.]+)'.*circular import",
        answer="is a file of yours in the working folder named like the package {module}? "
        "It hides the image's.",
        example="AttributeError: partially initialized module 'random' has no attribute 'x' (most "
        "likely due to a circular import)",
        source="https://docs.python.org/3/library/exceptions.html#AttributeError",
    ),
    Failure(
        name="externally managed",
        pattern=r"error: externally-managed-environment",
        answer="the image's system Python takes no packages: use limpet pip IMAGE install …, "
        "or add them to the description.",
        example="error: externally-managed-environment\n\n× This environment is externally managed",
        source="https://peps.python.org/pep-0668/",
    ),
    Failure(
        name="hdf5 lock",
        pattern=r"unable to lock file, errno = \d+",
        answer="HDF5 cannot lock files on this file system: add --env HDF5_USE_FILE_LOCKING=FALSE, "
        "if no other process writes the file.",
        example="BlockingIOError: [Errno 11] Unable to open file (unable to lock file, errno = 11, "
        "error message = 'Resource temporarily unavailable')",
        source="https://github.com/h5py/h5py/issues/1066",
    ),
    Failure(
        name="shared memory",
        pattern=r"DataLoader worker \(pid.*killed by signal: Bus error|insufficient shared memory",
        answer="/dev/shm is full: use fewer DataLoader workers, or ask for more "
        "memory for the job.",
        example="RuntimeError: DataLoader worker (pid 13) is killed by signal: Bus error. It is "
        "possible that dataloader's workers are out of shared memory.",
        source="https://github.com/pytorch/pytorch/issues/5040",
    ),
    Failure(
        name="OpenBLAS threads",
        pattern=r"OpenBLAS blas_thread_init: pthread_create",
        answer="too many threads: add --env OPENBLAS_NUM_THREADS=1, "
        "or as many as the job has CPUs.",
        example="OpenBLAS blas_thread_init: pthread_create failed for thread 2 of 64: Resource "
        "temporarily unavailable",
        source="https://github.com/OpenMathLib/OpenBLAS/issues/1668",
    ),
    Failure(
        name="no display",
        pattern=r"no display name and no \$DISPLAY|qt\.qpa\.xcb: could not connect to display",
        answer="there is no display here: plot into files (--env MPLBACKEND=Agg), "
        "or log in with ssh -X and add --env DISPLAY.",
        example="_tkinter.TclError: no display name and no $DISPLAY environment variable",
        source="https://matplotlib.org/stable/users/explain/figure/backends.html",
    ),
    Failure(
        name="libGL",
        pattern=r"libGL\.so\.1: cannot open shared object file",
        answer="put opencv-python-headless in place of opencv-python into the description, "
        'or [image] apt = ["libgl1"].',
        example="ImportError: libGL.so.1: cannot open shared object file: No such "
        "file or directory",
        source="https://github.com/opencv/opencv-python/issues/370",
    ),
    Failure(
        name="locale",
        pattern=r"locale\.Error: unsupported locale setting",
        answer="the image does not have your locale: add --env LC_ALL=C.UTF-8.",
        example="locale.Error: unsupported locale setting",
        source="https://docs.python.org/3/library/locale.html#locale.setlocale",
    ),
    Failure(
        name="no account",
        pattern=r"getpwuid\(\): uid not found",
        answer="your account is not in the image's /etc/passwd: add --env USER --env LOGNAME; "
        "getpass.getuser() takes these.",
        example="KeyError: 'getpwuid(): uid not found: 1000'",
        source="https://docs.python.org/3/library/pwd.html",
    ),
)

_GPUS = (
    Failure(
        name="driver too old",
        pattern=r"CUDA driver version is insufficient for CUDA runtime version"
        r"|NVIDIA driver on your system is too old",
        answer="the image's CUDA is newer than this machine's driver allows: "
        "limpet check IMAGE, here, says which fits.",
        example="CUDA driver version is insufficient for CUDA runtime version",
        source="https://github.com/NVIDIA/hpc-container-maker/issues/239",
    ),
    Failure(
        name="no NVIDIA driver",
        pattern=r"Found no NVIDIA driver on your system|libcuda\.so\.1: cannot open shared object",
        answer="no GPU is handed in: is this a node with one (salloc --gres=gpu:1)? "
        "limpet doctor tells.",
        example="RuntimeError: Found no NVIDIA driver on your system. Please check that you have "
        "an NVIDIA GPU and installed a driver",
        source="https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp",
    ),
    Failure(
        name="no CUDA device",
        pattern=r"no CUDA-capable device is detected|No CUDA GPUs are available",
        answer="the job has no GPU, or CUDA_VISIBLE_DEVICES names none: ask Slurm for one "
        "(--gres=gpu:1).",
        example="RuntimeError: No CUDA GPUs are available",
        source="https://github.com/thuml/Anomaly-Transformer/issues/74",
    ),
    Failure(
        name="no kernel image",
        pattern=r"no kernel image is available for execution on the device",
        answer="the package was not built for this model of GPU: take a newer version, "
        "or one for another CUDA.",
        example="RuntimeError: CUDA error: no kernel image is available for execution on the "
        "device",
        source="https://github.com/pytorch/pytorch/issues/31285",
    ),
    Failure(
        name="torch without CUDA",
        pattern=r"Torch not compiled with CUDA enabled",
        answer="this torch is for CPUs only: choose one for CUDA in the description "
        "(limpet lock --system NAME).",
        example="AssertionError: Torch not compiled with CUDA enabled",
        source="https://github.com/pytorch/pytorch/issues/28111",
    ),
    Failure(
        name="GPU memory",
        pattern=r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY",
        answer="the GPU's memory is full: smaller batches, or is another program on it "
        "(nvidia-smi)?",
        example="torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
        source="https://docs.pytorch.org/docs/stable/notes/cuda.html",
    ),
)

_MPI = (
    Failure(
        name="MPICH missing",
        pattern=r"libmpi\.so\.12: cannot open shared object file",
        answer="MPICH's library (libmpi.so.12) is not in the image: add the package mpich to the "
        "description, or start it where the site's MPI is handed in.",
        example="ImportError: libmpi.so.12: cannot open shared object file: No such file or "
        "directory",
        source="https://github.com/MolSSI-Education/parallel-programming/issues/6",
    ),
    Failure(
        name="Open MPI missing",
        pattern=r"libmpi\w*\.so\.[24]0: cannot open shared object file",
        answer="Open MPI's library is not in the image: add the package openmpi to the "
        "description, or start it where the site's MPI is handed in.",
        example="ImportError: libmpi.so.40: cannot open shared object file: No such file or "
        "directory",
        source="https://github.com/sfepy/sfepy/issues/941",
    ),
    Failure(
        name="MPI symbol",
        pattern=r"undefined symbol: P?MPI_\w+",
        answer="the MPI library that is loaded is older than, or of another family than, what the "
        "package was built for: limpet check IMAGE.",
        example="ImportError: /opt/env/MPI.so: undefined symbol: MPI_Neighbor_alltoallv_c",
        source="https://github.com/hiddenSymmetries/simsopt/issues/455",
    ),
    Failure(
        name="ranks apart",
        pattern=r"process_vm_readv.*(?:Operation not permitted|errno.?1\b)",
        answer="ranks on one node are in user namespaces of their own and cannot read each "
        "other's memory: start them with apptainer's --sharens, or without CMA "
        "(UCX_TLS=^cma, OMPI_MCA_btl_vader_single_copy_mechanism=none).",
        example="cma_ep.c:84   process_vm_readv(pid=3549634 {0x24ed520,12480}-->{0x1bd42a0,12480}) "
        "returned -1: Operation not permitted",
        source="https://github.com/apptainer/apptainer/issues/1227",
    ),
    Failure(
        name="long addresses",
        pattern=r"MPIDI_UCX_comm_addr_exchange|mpi/pmi2: value not properly terminated",
        answer="MPICH 5 with UCX hands out more than srun --mpi=pmi2 reads at once: use MPICH 4.3 "
        "(mpich==4.3.*).",
        example="MPIDI_UCX_comm_addr_exchange(159).....:  ucx function returned with failed "
        "status(ucx_init.c 159 MPIDI_UCX_comm_addr_exchange Invalid parameter)",
        source="https://github.com/pmodels/mpich/issues/6924",
    ),
    Failure(
        name="no PMI",
        pattern=r"OMPI was not built with SLURM's PMI support|PMI2_Init failed to intialize",
        answer="srun and the image's MPI do not speak the same PMI: try srun --mpi=pmix or "
        "--mpi=pmi2 (srun --mpi=list).",
        example="but OMPI was not built with SLURM's PMI support and therefore cannot",
        source="https://github.com/open-mpi/ompi/pull/3778",
    ),
    Failure(
        name="slots",
        pattern=r"There are not enough slots available in the system",
        answer="mpirun is asked for more ranks than the job has: ask Slurm for more tasks (-n), "
        "or mpirun --oversubscribe.",
        example="There are not enough slots available in the system to satisfy the 8\nslots that "
        "were requested by the application:",
        source="https://github.com/open-mpi/ompi/issues/7719",
    ),
)

_RUNTIME = (
    Failure(
        name="no image",
        pattern=r"could not open image (?P<image>\S+): failed to retrieve path",
        answer="there is no image at that path, as seen from this node: "
        "does it lie on a disk that all nodes have?",
        example="FATAL:   could not open image /scratch/a.sif: failed to retrieve path for "
        "/scratch/a.sif: lstat /scratch/a.sif: no such file or directory",
        source="https://github.com/apptainer/singularity/issues/5183",
    ),
    Failure(
        name="newuidmap",
        pattern=r"newuidmap: (?:write to uid_map failed|uid range .* not allowed)"
        r"|newuidmap was not found",
        answer="this account has no range of user ids, or newuidmap no rights: "
        "limpet doctor says what to ask for.",
        example="newuidmap: write to uid_map failed: Operation not permitted",
        source="https://github.com/podman-container-tools/buildah/issues/3834",
    ),
    Failure(
        name="user namespaces",
        pattern=r"Failed to create user namespace|mount namespace requires privileges",
        answer="this machine does not let users make namespaces: limpet doctor says what to ask "
        "the administrator for.",
        example="ERROR  : Failed to create user namespace: user namespace disabled",
        source="https://github.com/apptainer/singularity-userdocs/issues/435",
    ),
    Failure(
        name="fuse device",
        pattern=r"fuse: device not found|fusermount3?: mount failed|failed to open /dev/fuse",
        answer="images cannot be mounted through FUSE here: limpet doctor says what is missing.",
        example="fuse: device not found, try 'modprobe fuse' first",
        source="https://github.com/apptainer/apptainer/issues/2324",
    ),
    Failure(
        name="mount slow",
        pattern=r"squashfuse_ll failed to mount .* in \d+s",
        answer="the file system with the image answers too slowly: try again, "
        "or copy the image to a faster disk.",
        example="squashfuse_ll failed to mount /var/apptainer/mnt/session/rootfs in 2s",
        source="https://github.com/apptainer/apptainer/issues/949",
    ),
    Failure(
        name="no program",
        pattern=r'FATAL:\s+"(?P<program>[^"]+)": executable file not found in \$PATH'
        r"|FATAL:\s+stat (?P<path>\S+): no such file or directory"
        r"|/start: \d+: exec: (?P<word>\S+): not found",
        answer="the image has no program {program}{path}{word}: "
        "add what brings it to the description.",
        example='FATAL:   "nothere": executable file not found in $PATH',
        source="https://github.com/apptainer/apptainer/issues/1729",
    ),
)

_LIBRARIES = (
    Failure(
        name="glibc",
        pattern=r"version [`']GLIBC_(?P<version>[\d.]+|ABI_\w+)' not found",
        answer="a library needs a newer glibc ({version}) than the image has: build on a newer "
        "base (limpet check IMAGE shows which; for the host's GPU libraries, --gpu none).",
        example="/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by "
        "/.singularity.d/libs/libGLX.so.0)",
        source="https://github.com/apptainer/apptainer/issues/945",
    ),
    Failure(
        name="libstdc++",
        pattern=r"version [`'](?P<version>(?:GLIBCXX|CXXABI)_[\d.]+)' not found",
        answer="a package needs a newer libstdc++ ({version}) than is loaded: build on a newer "
        "base, or with conda's libstdcxx-ng.",
        example="ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.30' not "
        "found",
        source="https://github.com/isl-org/Open3D/issues/5531",
    ),
    Failure(
        name="library missing",
        pattern=r"(?P<library>lib[\w.+-]+\.so[.\d]*): cannot open shared object file",
        answer="{library} is not in the image, or not where the loader looks: limpet check IMAGE.",
        example="ImportError: libfoo.so.3: cannot open shared object file: No such file or "
        "directory",
        source="https://man7.org/linux/man-pages/man8/ld.so.8.html",
    ),
    Failure(
        name="other processor",
        pattern=r"[Ee]xec format error|could not run on the host's",
        answer="the program or image is for another kind of processor: build it for this one.",
        example="OSError: [Errno 8] Exec format error: '/opt/tool'",
        source="https://man7.org/linux/man-pages/man2/execve.2.html",
    ),
)

_DISKS = (
    Failure(
        name="read-only",
        pattern=r"Read-only file system(?:: '(?P<path>[^']*)')?",
        answer="images are read-only: write elsewhere, or find out what writes with "
        "limpet check IMAGE --imports; --overlay makes the image writable.",
        example="OSError: [Errno 30] Read-only file system: '/opt/env/x'",
        source="https://apptainer.org/docs/user/latest/persistent_overlays.html",
    ),
    Failure(
        name="quota",
        pattern=r"Disk quota exceeded",
        answer="your quota is used up, in bytes or in files: limpet doctor shows which, "
        "limpet state what images keep.",
        example="OSError: [Errno 122] Disk quota exceeded",
        source="https://man7.org/linux/man-pages/man1/quota.1.html",
    ),
    Failure(
        name="disk full",
        pattern=r"[Nn]o space left on device",
        answer="a disk is full (/tmp, a job's TMPDIR or an overlay?): limpet doctor shows which; "
        "TMPDIR=/a/larger/folder moves temporary files.",
        example="OSError: [Errno 28] No space left on device",
        source="https://man7.org/linux/man-pages/man3/errno.3.html",
    ),
    Failure(
        name="stale handle",
        pattern=r"Stale (?:NFS )?file handle",
        answer="a file was replaced or removed on a network disk while it was open: "
        "was the image rebuilt in place? limpet's own builds rename instead.",
        example="OSError: [Errno 116] Stale file handle",
        source="https://man7.org/linux/man-pages/man3/errno.3.html",
    ),
    Failure(
        name="mount gone",
        pattern=r"Transport endpoint is not connected",
        answer="the process that mounted the image has ended (squashfuse was killed, or out of "
        "memory): start again, with more memory for the job.",
        example="OSError: [Errno 107] Transport endpoint is not connected",
        source="https://github.com/apptainer/apptainer/issues/3504",
    ),
)

_LIMITS = (
    Failure(
        name="certificates",
        pattern=r"CERTIFICATE_VERIFY_FAILED|unable to get local issuer certificate",
        answer="the site's certificates are not known inside: add --env SSL_CERT_FILE=FILE, "
        "with that file below a folder that is mounted.",
        example="ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate "
        "verify failed",
        source="https://docs.python.org/3/library/ssl.html#ssl.SSLCertVerificationError",
    ),
    Failure(
        name="open files",
        pattern=r"Too many open files",
        answer="the limit of open files is reached: ulimit -n 65536, before limpet run.",
        example="OSError: [Errno 24] Too many open files: '/x'",
        source="https://man7.org/linux/man-pages/man3/errno.3.html",
    ),
    Failure(
        name="threads",
        pattern=r"can't start new thread|fork: retry: Resource temporarily unavailable",
        answer="the limit of processes is reached (ulimit -u): start fewer workers or threads "
        "(--env OMP_NUM_THREADS=1).",
        example="RuntimeError: can't start new thread",
        source="https://man7.org/linux/man-pages/man2/getrlimit.2.html",
    ),
    Failure(
        name="out of memory",
        pattern=r"oom_kill event in|oom-kill event|DefaultCPUAllocator: can't allocate memory"
        r"|Cannot allocate memory|\bMemoryError\b|Unable to allocate .* for an array",
        answer="the memory ran out: ask for more in the job (--mem).",
        example="slurmstepd: error: Detected 1 oom_kill event in StepId=123456.batch. Some of the "
        "step tasks have been OOM Killed.",
        source="https://slurm.schedmd.com/cgroups.html",
    ),
    Failure(
        name="illegal instruction",
        pattern=r"Illegal instruction|illegal hardware instruction",
        codes=(132,),
        answer="the program uses an instruction that this processor lacks: it was compiled for a "
        "newer one.",
        example="Fatal Python error: Illegal instruction",
        source="https://man7.org/linux/man-pages/man7/signal.7.html",
    ),
    Failure(
        name="bus error",
        pattern=r"Fatal Python error: Bus error",
        codes=(135,),
        answer="a mapped file became shorter, or /dev/shm or the disk is full: limpet doctor.",
        example="Fatal Python error: Bus error",
        source="https://man7.org/linux/man-pages/man7/signal.7.html",
    ),
    Failure(
        name="Python's own modules",
        pattern=r"ModuleNotFoundError: No module named 'encodings'",
        answer="Python does not find its own modules: PYTHONHOME names another place "
        "(--env and pass_variables let it in), or the image is damaged (limpet check IMAGE).",
        example="ModuleNotFoundError: No module named 'encodings'",
        source="https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHOME",
    ),
    Failure(
        name="module missing",
        pattern=r"(?:ModuleNotFoundError|python[\d.]*): No module named '?(?P<module>[\w.]+)",
        answer="{module} is not in the image: limpet pip IMAGE install it for yourself, "
        "or add it to the description.",
        example="ModuleNotFoundError: No module named 'foo'",
        source="https://docs.python.org/3/library/exceptions.html#ModuleNotFoundError",
    ),
)

FAILURES = (*_PACKAGES, *_GPUS, *_MPI, *_RUNTIME, *_LIBRARIES, *_DISKS, *_LIMITS)
