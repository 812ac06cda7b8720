"""Count what importing modules asks of the file system; run by the environment's own Python.

    python -c SOURCE NAME...

Prints one line of JSON behind a word of its own and waits for a line, so that others can be looked
at meanwhile. Counted are opens (by an audit hook, from Python 3.8 on) and looks for attributes (by
standing before posix.stat and its like, which the import system calls by name). What Python does
before its first line and what the loader searches is not seen.
"""

import json
import os
import posix
import sys

counts = {"stats": 0, "opens": 0, "lists": 0}
opened = set()


def counting(name):
    inner = getattr(posix, name)

    def outer(*args, **kwargs):
        counts["stats"] += 1
        return inner(*args, **kwargs)

    setattr(posix, name, outer)
    if getattr(os, name, None) is inner:
        setattr(os, name, outer)


def heard(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        counts["opens"] += 1
        opened.add(os.fsdecode(args[0]))
    elif event in ("os.listdir", "os.scandir"):
        counts["lists"] += 1


def mapped():
    found = set()
    with open("/proc/self/maps") as maps:
        for line in maps:
            at = line.find("/")
            if at > 0:
                found.add(line[at:].rstrip("\n"))
    return found


def main():
    for name in ("stat", "lstat", "readlink", "access"):
        counting(name)
    if hasattr(sys, "addaudithook"):
        sys.addaudithook(heard)
    for name in sys.argv[1:]:
        __import__(name)
    told = dict(counts)
    early = {m.__cached__ for m in list(sys.modules.values()) if getattr(m, "__cached__", None)}
    paths = {os.path.abspath(path) for path in opened | early | mapped()}
    files = {p for p in paths if os.path.isfile(p) and not p.startswith(("/proc/", "/sys/"))}
    told["opens"] += len(files - {os.path.abspath(path) for path in opened})
    told["bases"] = [sys.prefix, sys.base_prefix]
    told["paths"] = sorted(files)
    told["bytes"] = sum(os.path.getsize(path) for path in files)
    sys.stdout.write("\nlimpet-probe " + json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


main()
