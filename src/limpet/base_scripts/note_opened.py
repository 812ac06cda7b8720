"""Every Python of a profiled run loads this as `sitecustomize`: notes which files it opens.

Appends one path a line, in their order, to the file that LIMPET_OPENED names: at once, so that
nothing is lost when the program crashes or is stopped. Shared libraries, which the loader opens,
are seen in the memory map after each extension module. Works from Python 3.6 on; before 3.8, which
has no audit hooks, modules and libraries are noted when the program ends.

Run as `note_opened.py SECONDS COMMAND …` it starts the program, and adds `0-3,7 PATH` for the
larger ones of these files, which blocks of 128 KiB were read: the image is mounted for this run
alone, so what the kernel holds of it is what was asked for. It looks when the program has ended,
and that often before, for what runs longer is stopped and the mount goes with it.
"""

import os
import sys

OPENED = "LIMPET_OPENED"
WRITING = os.O_WRONLY | os.O_RDWR
BLOCK_BYTES = 128 << 10
WINDOW_BYTES = 1 << 30  # that are mapped at once


def is_checked(path):
    """Whether this is byte code that is held against its source at each import (PEP 552)."""
    if not path.endswith(".pyc"):
        return False
    with open(path, "rb") as file:
        return file.read(8)[4:5] == b"\3"


class Notes:
    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.seen = set()
        self.stale = True  # libraries may have been loaded since the map was looked at

    def add(self, path):
        if path not in self.seen and path.startswith("/") and "\n" not in path:
            self.seen.add(path)
            self.write(path)

    def write(self, line):
        try:
            os.write(self.descriptor, os.fsencode(line) + b"\n")
        except OSError:
            pass

    def add_libraries(self):
        self.stale = False
        with open("/proc/self/maps", "rb") as file:
            lines = file.readlines()
        for line in reversed(lines):  # what is loaded later lies lower
            words = line.rstrip(b"\n").split(None, 5)
            if len(words) == 6:
                self.add(os.fsdecode(words[5]))

    def add_modules(self):
        for module in list(sys.modules.values()):
            for name in ("__cached__", "__file__"):
                path = getattr(module, name, None)
                if isinstance(path, str) and os.path.exists(path):
                    self.add(path)
                    if not is_checked(path):
                        break

    def hook(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                return
            if isinstance(path, (str, bytes)):
                self.settle()
                self.add(os.path.abspath(os.fsdecode(path)))
        elif event in ("import", "ctypes.dlopen"):
            self.settle()
            # An import is told of by name first, and with its file where the loader gets to work.
            self.stale = event != "import" or bool(arguments[1])
        elif event in ("os.exec", "os.posix_spawn", "subprocess.Popen"):
            self.settle()

    def settle(self):
        if self.stale:
            self.add_libraries()

    def finish(self):
        self.add_libraries()
        self.add_modules()


def memory():
    """A function that says which blocks of a file the kernel holds; None where none can be asked.

    To whom a file does not belong, Linux says that it holds all of it (5.2 and later): so does a
    mount of the kernel's own squashfs, and then all of a file counts as read.
    """
    try:
        import ctypes
        import mmap

        mincore = ctypes.CDLL(None).mincore
    except (ImportError, OSError, AttributeError):
        return None

    def look(descriptor, start, size):
        part = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, offset=start)
        first = ctypes.c_char.from_buffer(part)
        pages = (ctypes.c_ubyte * ((size + mmap.PAGESIZE - 1) // mmap.PAGESIZE))()
        place = ctypes.c_void_p(ctypes.addressof(first))
        failed = mincore(place, ctypes.c_size_t(size), pages)
        del first
        part.close()
        if failed:
            raise OSError("mincore")
        there = (start + at * mmap.PAGESIZE for at, page in enumerate(pages) if page & 1)
        return {at // BLOCK_BYTES for at in there}

    def at_hand(path):
        found = set()
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for start in range(0, size, WINDOW_BYTES):
                found |= look(file.fileno(), start, min(WINDOW_BYTES, size - start))
        return found

    return at_hand


def runs_of(numbers):
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join("%d-%d" % (a, b) if a < b else str(a) for a, b in runs)


def tell_blocks(notes):
    at_hand = memory()
    if not (at_hand and os.path.exists(notes)):
        return
    with open(notes, "rb") as file:
        paths = {line for line in file.read().split(b"\n") if line.startswith(b"/")}
    told = []
    for path in sorted(paths):
        try:
            if os.path.getsize(path) > BLOCK_BYTES:
                told.append(os.fsencode(runs_of(at_hand(path)) or "-") + b" " + path + b"\n")
        except (OSError, ValueError):
            pass
    with open(notes, "ab") as file:
        file.write(b"".join(told))


def watch(every_s, words):
    import subprocess

    running = subprocess.Popen(words)
    code = None
    while code is None:
        try:
            code = running.wait(every_s)
        except subprocess.TimeoutExpired:
            pass
        try:
            tell_blocks(os.environ[OPENED])
        except (OSError, MemoryError):  # its files count whole then; the program is no worse off
            pass
    sys.exit(code if code >= 0 else 128 - code)


def begin(path):
    import atexit

    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    notes = Notes(descriptor)
    notes.add_libraries()
    notes.add_modules()
    if hasattr(sys, "addaudithook"):
        sys.addaudithook(notes.hook)
    atexit.register(notes.finish)


def hand_on():
    """The image's own sitecustomize, which this one stands before."""
    import importlib

    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != folder]
    del sys.modules["sitecustomize"]
    try:
        importlib.import_module("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise


if __name__ == "sitecustomize":
    if os.environ.get(OPENED):
        begin(os.environ[OPENED])
    hand_on()
elif __name__ == "__main__":
    watch(float(sys.argv[1]), sys.argv[2:])
