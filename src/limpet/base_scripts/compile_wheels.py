"""Compile the modules of wheels to byte code; runs in the base, by the base's own Python (>= 3.6).

Reads one JSON object a line from standard input: {"job", "wheel", "out", "files"}, where each of
`files` is [final path, offset of the zip member's local header, compressed size, zip method].
Writes the byte code of all files, in their order, into `out`, each with its import statements (see
`module_imports`; a little-endian length before each of the two; 0 for a file that does not compile,
as compileall skips it) and then one line to standard output: {"job", "status"}. Without a "wheel",
files are read at their final path. Hash based byte code is never checked against its source at
import, and does not depend on modification times. A job with "names" instead of "files" asks which
modules the base has itself, with all that these import in turn (`module_imports.Library.close`).

The same source must give the same bytes in every build. What marshal writes depends on the hash
seed (the order of frozensets, up to Python 3.10) and on what else the process holds (a constant
that is interned or referenced twice is written as a reference). So the seed is fixed, and each job
is compiled in a fresh fork of a process that does nothing but fork.
"""

import gc
import json
import marshal
import os
import struct
import sys
import warnings
import zlib
from importlib.util import MAGIC_NUMBER

LOCAL_HEADER = struct.Struct("<26xHH")


def restart_with_fixed_seed():
    """Start again with a known hash seed and nothing of the base's PYTHON* settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PYTHONHASHSEED"] = "0"
    script = os.path.abspath(__file__)
    os.execve(sys.executable, [sys.executable, "-S", "-s", "-B", script, "serve"], env)


def read_member(wheel, offset, size, method):
    start = offset + LOCAL_HEADER.size
    names = sum(LOCAL_HEADER.unpack(os.pread(wheel, LOCAL_HEADER.size, offset)))
    data = os.pread(wheel, size, start + names)
    return zlib.decompress(data, -15) if method else data


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def source_header(source):
    if sys.version_info < (3, 7):  # no hash based byte code yet: time 0, which all files have
        return struct.pack("<II", 0, len(source) & 0xFFFFFFFF)
    from importlib.util import source_hash

    return struct.pack("<I", 0b01) + source_hash(source)


def compile_source(source, path):
    """The content of a .pyc and its imports, or nothing where the source is not for this Python."""
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError, RecursionError, MemoryError, OverflowError):
        return b"", b""
    byte_code = MAGIC_NUMBER + source_header(source) + marshal.dumps(code)
    return byte_code, "\n".join(module_imports.imports_of(code)).encode("utf-8", "replace")


def compile_job(request):
    wheel = os.open(request["wheel"], os.O_RDONLY) if request["wheel"] else -1
    with open(request["out"], "wb") as out:
        for path, offset, size, method in request["files"]:
            source = read_member(wheel, offset, size, method) if wheel >= 0 else read_file(path)
            for data in compile_source(source, path):
                out.write(struct.pack("<I", len(data)))
                out.write(data)


def look_job(request):
    library = module_imports.Library(request["packages"])
    with open(request["out"], "w") as out:
        json.dump(library.close(request["names"]), out, sort_keys=True)


def answer(message):
    os.write(1, (json.dumps(message) + "\n").encode())


def watch_job(line):
    """Compile in a child of this process, and tell how it ended even if it was killed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            request = json.loads(line.decode())
            (look_job if "names" in request else compile_job)(request)
            code = 0
        except Exception as error:
            os.write(2, (repr(error) + "\n").encode())
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    answer({"job": json.loads(line.decode())["job"], "status": status})


def serve():
    warnings.simplefilter("ignore")
    # Reference counting frees everything that compiling makes but a few cycles; jobs are short.
    gc.disable()
    answer({"cache_tag": sys.implementation.cache_tag, "magic": MAGIC_NUMBER.hex()})
    watchers = set()
    for line in sys.stdin.buffer:
        watcher = os.fork()
        if not watcher:
            try:
                watch_job(line)
            finally:
                os._exit(0)
        watchers.add(watcher)
        while watchers:
            ended = os.waitpid(-1, os.WNOHANG)[0]
            if not ended:
                break
            watchers.discard(ended)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        import module_imports  # lies beside this file, where only the second start looks

        serve()
    else:
        restart_with_fixed_seed()
