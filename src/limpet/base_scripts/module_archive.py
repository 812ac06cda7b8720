"""Imports what a start imports from one file; Python loads this from the environment's `.pth` file.

The byte code of the modules that a start imports lies in one file of the image, in the order of
their import (`core/module_archive`), with a list of what the folders around them hold. So importing
a thousand modules asks the image for some hundred blocks, where a thousand files would be looked
for (their source and their byte code), opened, read and closed.

All else is as ever: what is imported is decided by `sys.path`, folder by folder, and modules are
those of their files: name, source, `__cached__`. Finders and loaders are Python's own, each with
one method of ours, because some programs ask for their very types (distlib). A folder that is not
in the list is looked into as Python does. The list holds for the image as it was built, so limpet's
starts name that image in LIMPET_MODULES, and do not where something is mounted over it. Python 3.6
and later.
"""

import marshal
import os
import sys
from _functools import partial  # functools is a module of its own to import

FOLDER = "/opt/env/.limpet"
VARIABLE = "LIMPET_MODULES"
MOST_BLOCKS = 8  # that are asked for at once
HEADER_BYTES = 16  # of byte code: magic number, flags, hash of the source (PEP 552)
UNCHECKED = b"\1\0\0\0"

external = sys.modules["_frozen_importlib_external"]


class Archive:
    """The index and the blocks. `folders` are those it knows, each with where its record is."""

    def __init__(self, key):
        with open(FOLDER + "/modules.index", "rb") as file:
            self.data = file.read()
        head = marshal.loads(self.data)
        if head["key"] != key or head["tag"] != sys.implementation.cache_tag:
            raise ValueError("made for another start")
        self.folders = head["folders"]
        self.block_bytes = head["block_bytes"]
        self.start = head["start"]
        self.records = {}
        self.blocks = None
        self.asked = set()
        self.ahead = 1

    def record(self, folder):
        """What a folder holds: files, folders with their `__init__` files, places of byte code."""
        record = self.records.get(folder)
        if record is None:
            start = self.start + self.folders[folder]
            record = self.records[folder] = marshal.loads(memoryview(self.data)[start:])
        return record

    def find_code(self, path):
        """The byte code of a module's source, with its header; None where it is not here."""
        folder, _, name = path.rpartition("/")
        place = self.record(folder)[2].get(name) if folder in self.folders else None
        if place is None:
            return None
        start, size = place
        if self.blocks is None:
            self.blocks = self.open_blocks()
        self.ask_ahead(start // self.block_bytes)
        data = self.blocks[start : start + size]
        is_whole = len(data) == size and data[:4] == external.MAGIC_NUMBER
        return data if is_whole and data[4:8] == UNCHECKED else None

    def open_blocks(self):
        """Mapped, so that programs which close all files, or count them, do not meet it."""
        import mmap

        with open(FOLDER + "/modules", "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def ask_ahead(self, number):
        """Have the image read a block whole; the more at once, the longer one follows the other.

        A page fault alone has the kernel read what is around it: of two blocks, never the next.
        """
        if number in self.asked or not hasattr(self.blocks, "madvise"):  # before Python 3.8
            return
        self.ahead = min(2 * self.ahead, MOST_BLOCKS) if number - 1 in self.asked else 1
        self.asked.update(range(number, number + self.ahead))
        size = self.block_bytes
        start = number * size
        length = min(self.ahead * size, len(self.blocks) - start)
        self.blocks.madvise(3, start, length)  # MADV_WILLNEED

    def finder(self, path):
        """For sys.path_hooks: Python's own finder, which looks into the archive's list instead."""
        if path not in self.folders:
            raise ImportError("not in the archive")
        finder = external.FileFinder(path, *external._get_supported_file_loaders())
        finder.find_spec = partial(self.find_spec, finder)
        return finder

    def find_spec(self, finder, fullname, target=None):
        """What FileFinder.find_spec finds in its folder."""
        name = fullname.rpartition(".")[2]
        files, folders, _ = self.record(finder.path)
        inside = folders.get(name)
        if inside is not None:
            folder = finder.path + "/" + name
            for suffix, kind in finder._loaders:
                if "__init__" + suffix in inside:
                    return self.make_spec(kind, fullname, folder + "/__init__" + suffix, [folder])
        for suffix, kind in finder._loaders:
            if name + suffix in files:
                return self.make_spec(kind, fullname, finder.path + "/" + name + suffix, None)
        if inside is None:
            return None
        spec = external._bootstrap.ModuleSpec(fullname, None)
        spec.submodule_search_locations = [finder.path + "/" + name]
        return spec

    def make_spec(self, kind, fullname, path, locations):
        """As FileFinder makes it, with a loader that takes code from the archive."""
        loader = kind(fullname, path)
        if kind is external.SourceFileLoader:
            loader.get_code = partial(self.get_code, loader)
        return external.spec_from_file_location(
            fullname, path, loader=loader, submodule_search_locations=locations
        )

    def get_code(self, loader, fullname):
        """What SourceFileLoader.get_code gives."""
        try:
            data = self.find_code(loader.path)
        except (OSError, ValueError, ImportError):
            data = None
        if data is None or external._imp.check_hash_based_pycs == "always":
            return type(loader).get_code(loader, fullname)
        return external._compile_bytecode(
            memoryview(data)[HEADER_BYTES:], name=fullname, source_path=loader.path
        )


def install(key):
    """Let this Python import from the archive, if it is the one of this image."""
    if sys.flags.optimize:  # other byte code
        return
    try:
        archive = Archive(key)
    except (OSError, ValueError, EOFError, TypeError, KeyError):
        return
    sys.path_hooks.insert(0, archive.finder)
    for path in archive.folders:
        sys.path_importer_cache.pop(path, None)


install(os.environ[VARIABLE])
