"""Run by a Python of the host (-E -s): what it is and what it loads, as JSON. Any Python at all.

An old one must be able to say how old it is, so nothing newer than Python 2.6 stands in here.
"""

import json
import os
import sys

# Modules that load libraries of the system's, or of the software tree that the Python is from.
MODULES = ("bz2", "ctypes", "hashlib", "lzma", "readline", "sqlite3", "ssl", "zlib")


def import_all():
    found = []
    for name in MODULES:
        try:
            __import__(name)
            found.append(name)
        except ImportError:
            pass
    return found


def mapped_files():
    found = set()
    with open("/proc/self/maps") as file:
        for line in file:
            path = line.rstrip("\n").split(None, 5)[5:]
            if path and path[0].startswith("/") and os.path.isfile(path[0]):
                found.add(path[0])
    return sorted(found)


def libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return ""


def main():
    modules = import_all()
    implementation = getattr(sys, "implementation", None)
    described = {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "hexversion": sys.hexversion,
        "cache_tag": getattr(implementation, "cache_tag", "") or "",
        "executable": os.readlink("/proc/self/exe"),
        "prefix": sys.prefix,
        "base_prefix": getattr(sys, "base_prefix", getattr(sys, "real_prefix", sys.prefix)),
        "base_exec_prefix": getattr(sys, "base_exec_prefix", sys.exec_prefix),
        "machine": os.uname()[4],
        "libc": libc(),
        "path": [os.path.abspath(entry) for entry in sys.path if os.path.isdir(entry)],
        "modules": modules,
        "mapped": mapped_files(),
    }
    print("\nhost " + json.dumps(described, sort_keys=True))


main()
