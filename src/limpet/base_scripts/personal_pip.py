"""pip, for the personal packages of one image; run by the image's own Python, from 3.8 on.

Where LIMPET_PACKAGES is set (limpet's own images) packages go into that folder, else into the user
site. They are held to the versions of all that the image has, unless `--override` is given; only
one pip at a time changes them. `--personal` with `list` and `freeze` shows nothing else.
"""

import errno
import fcntl
import importlib
import os
import re
import sys

KIT = os.path.dirname(os.path.abspath(__file__))
CHANGING = ("install", "uninstall")
# With these the packages go elsewhere, and that is the user's word.
ELSEWHERE = ("-t", "--target", "--prefix", "--root", "--dry-run")
BUSY_CODE = 75  # EX_TEMPFAIL of sysexits.h


def main(words):
    verb = next((word for word in words if not word.startswith("-")), "")
    override = "--override" in words
    own = os.environ.get("LIMPET_PACKAGES", "")
    words = [word for word in words if word not in ("--override", "--personal", verb)]
    if "--personal" in sys.argv:
        words.append("--local" if own else "--user")
    begin_with_pip()
    if verb not in CHANGING:
        return run_pip(verb, words, own)
    folder = own or user_folder()
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, ".limpet-lock"), "a")
    except OSError as error:
        return fail("%s cannot be written: %s." % (folder, error.strerror))
    with lock:
        if is_busy(lock):
            return fail(
                "Another pip changes this image's personal packages. Wait for it to end.", BUSY_CODE
            )
        code = change(verb, words, own, folder, override)
        if own:
            note_overrides(folder)
    return code


def change(verb, words, own, folder, override):
    if verb == "install":
        if not any(word.split("=")[0] in ELSEWHERE for word in words):
            words = placed(own, folder) + words
        if not override:
            limits = os.path.join(folder, ".limpet-constraints.txt")
            with open(limits, "w") as file:
                file.writelines(
                    "%s==%s\n" % pair for pair in sorted(image_versions(folder).items())
                )
            words += ["--constraint", limits]
    sys.stdout = told = Told(sys.stdout)
    try:
        code = run_pip(verb, words, own)
    finally:
        sys.stdout = told.stream
    if code and "(constraint)" in told.text:
        sys.stderr.write(
            "limpet: Personal packages are held to what the image has; --override lifts that.\n"
        )
    return code


def placed(own, folder):
    if own:
        # pip asks for this file of what it takes for a virtual environment.
        with open(os.path.join(folder, "pyvenv.cfg"), "w") as file:
            file.write("include-system-site-packages = true\n")
        return ["--no-user", "--prefix", own, "--no-warn-script-location"]
    return ["--user", "--no-warn-script-location"]


def begin_with_pip():
    """Take limpet's pip where this Python is new enough for it, else the image's own."""
    sys.path[:] = [entry for entry in sys.path if entry not in (KIT, os.path.join(KIT, "module"))]
    with open(os.path.join(KIT, "python")) as file:
        needed = tuple(int(part) for part in re.findall(r"\d+", file.read())[:2])
    if sys.version_info[:2] >= needed:
        sys.path.insert(0, os.path.join(KIT, "pip.zip"))


def run_pip(verb, words, own):
    try:
        pip = importlib.import_module("pip._internal.cli.main").main
    except ImportError:
        return fail(
            "This image's Python %s is too old for limpet's pip, and it has none of its own."
            % sys.version.split()[0]
        )
    if own:
        # What pip takes for its own environment: it lists and removes nothing outside of it.
        sys.prefix = own
    return pip(([verb] if verb else []) + words)


def user_folder():
    import site

    if not site.ENABLE_USER_SITE:
        sys.exit(
            fail(
                "%s sees no personal packages: it is a virtual environment, "
                "or the image says so." % sys.executable
            )
        )
    return site.getuserbase()


def distributions(entries):
    from importlib.metadata import distributions as found

    for one in found(path=entries):
        name = one.metadata["Name"] if one.metadata else None
        if name:
            yield re.sub(r"[-_.]+", "-", name).lower(), one.version


def image_versions(folder):
    """What the image has; the first of a name on the path is the one that counts."""
    inside = [entry for entry in sys.path if entry and not is_below(entry, folder)]
    versions = {}
    for name, version in distributions(inside):
        if version and re.match(r"\d+[0-9A-Za-z.!+_-]*$", version):
            versions.setdefault(name, version)
    return versions


def is_below(path, folder):
    return os.path.abspath(path).startswith(os.path.join(os.path.abspath(folder), ""))


def note_overrides(folder):
    """The file `first` names what stands for the image's own; it brings the folder forward."""
    personal = [entry for entry in sys.path if is_below(entry, folder)]
    personal += [os.path.join(folder, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")]
    names = set(dict(distributions(sorted(set(personal))))) & set(image_versions(folder))
    marker = os.path.join(folder, "first")
    if names:
        with open(marker, "w") as file:
            file.write("\n".join(sorted(names)) + "\n")
    elif os.path.exists(marker):
        os.unlink(marker)


def is_busy(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False


class Told(object):
    """Standard output that remembers what was written to it."""

    def __init__(self, stream):
        self.stream = stream
        self.text = ""

    def write(self, text):
        self.text += text
        return self.stream.write(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def fail(message, code=1):
    sys.stderr.write("limpet: %s\n" % message)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
