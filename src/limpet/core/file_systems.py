"""Kinds of file systems, by the names that the kernel gives them."""

from __future__ import annotations

import re

SHARED = re.compile(
    r"nfs\d*|lustre|gpfs|beegfs\w*|ceph|cifs|smb\d*|panfs|pvfs2|orangefs|afs|wekafs|glusterfs"
    r"|fuse\.(glusterfs|sshfs|ceph\w*|juicefs|cvmfs\w*)"
)
MEMORY = ("tmpfs", "ramfs")
