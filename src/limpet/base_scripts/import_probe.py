"""Run by an image's Python: imports modules, each in a process of its own, and tells what they did.

Reads a request from standard input (one JSON object), writes one JSON object a line. What Python
code opens for writing is seen from Python 3.8 on; all that appears below `roots` is seen always.
Works from Python 3.6 on.
"""

import json
import os
import signal
import subprocess
import sys

LAST_LINES = 12
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# event: which of its arguments is the path that is written
EVENTS = {
    "open": 0,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
}
NO_MODULES = ("test", "tests", "doc", "docs", "examples", "benchmarks", "scripts")


def watch(descriptor):
    """Write each attempt to write to `descriptor`, at once, so that a crash loses nothing."""
    seen = set()

    def hook(event, arguments):
        if event not in EVENTS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        path = arguments[EVENTS[event]]
        if not isinstance(path, (str, bytes)):
            return
        path = os.path.abspath(os.fsdecode(path))
        if path.startswith(("/dev/", "/proc/", "/sys/")) or (event, path) in seen:
            return
        seen.add((event, path))
        os.write(descriptor, (json.dumps([event, path]) + "\n").encode())

    if hasattr(sys, "addaudithook"):
        sys.addaudithook(hook)


def be_child(name, descriptor):
    import importlib

    sys.path.pop(0)  # this script's own folder
    sys.argv = [""]
    watch(descriptor)
    importlib.import_module(name)


def import_one(name, timeout_s):
    """Outcome, exit code, last lines and attempts of one import."""
    reader, writer = os.pipe()
    argv = [sys.executable, os.path.abspath(__file__), "--child", name, str(writer)]
    # Byte code is not what is asked for: Python does without where it cannot be written.
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(writer,),
        env=env,
        start_new_session=True,
    )
    os.close(writer)
    hung = False
    told = Drain(reader)
    try:
        said = child.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        hung = True
        said = b""
    try:
        os.killpg(child.pid, signal.SIGKILL)  # also what the import left running
    except OSError:
        pass
    if hung:
        said = child.communicate()[0]
    outcome = "ok"
    if hung:
        outcome = "hung"
    elif child.returncode < 0:
        outcome = "crashed"
    elif child.returncode:
        outcome = "failed"
    lines = said.decode("utf-8", "replace").strip().splitlines()[-LAST_LINES:]
    attempts = [json.loads(line) for line in told.lines()]
    return {"outcome": outcome, "code": child.returncode, "last": lines, "attempts": attempts}


class Drain:
    """Reads a pipe to its end beside everything else, so that its writer never waits."""

    def __init__(self, descriptor):
        import threading

        self._data = b""
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    def _read(self, descriptor):
        with os.fdopen(descriptor, "rb") as file:
            for line in file:
                self._data += line

    def lines(self):
        self._thread.join(5)
        return [line for line in self._data.split(b"\n")[:-1] if line]


def is_refused(event, path):
    """Whether that path cannot be written here: not even by making it."""
    if os.path.lexists(path):
        return event != "os.mkdir" and not os.access(path, os.W_OK)
    return event not in ("os.remove", "os.rmdir") and not os.access(os.path.dirname(path), os.W_OK)


def scan(root):
    """Path → state, of all below a folder."""
    found = {}
    for where, folders, names in os.walk(root):
        for name in folders + names:
            if name.startswith(".wh."):  # how fuse-overlayfs marks folders
                continue
            path = os.path.join(where, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            state = [status.st_mode, status.st_size, status.st_mtime_ns]
            found[path[len(root) :]] = state if name in names else status.st_mode
    return found


def changes(before, after):
    """New or changed paths; of a folder that is new with what is in it, only the latter."""
    new = [path for path in sorted(after) if before.get(path) != after[path]]
    return [path for path in new if not any(other.startswith(path + "/") for other in new)]


def list_modules():
    """Importable top-level names → the distribution that they come from."""
    from importlib.metadata import distributions

    found = {}
    for dist in distributions():
        named = (dist.read_text("top_level.txt") or "").split()
        for path in [] if named else dist.files or ():
            first = path.parts[0]
            if len(path.parts) > 1 and not first.endswith((".dist-info", ".data")):
                named.append(first)
            elif first.endswith((".py", ".so")):
                named.append(first.split(".")[0])
        for name in named:
            plain = name.isidentifier() and not name.startswith("_") and name not in NO_MODULES
            if plain:
                found.setdefault(name, dist.metadata["Name"] or "")
    return found


def normal(name):
    return name.lower().replace("_", "-").replace(".", "-")


def choose(names):
    """The modules asked for, by their own or their distribution's name, or all."""
    try:
        known = list_modules()
    except ImportError:  # Python 3.6 and 3.7
        known = {}
    if not names:
        return known
    chosen = {}
    for name in names:
        of_dist = [m for m, d in known.items() if normal(d) == normal(name)]
        for module in [name] if name in known or not of_dist else of_dist:
            chosen[module] = known.get(module.split(".")[0], "")
    return chosen


def main():
    request = json.loads(sys.stdin.read())
    chosen = choose(request["names"])
    say({"python": sys.version.split()[0], "prefix": sys.prefix, "modules": len(chosen)})
    roots = request["roots"]
    before = {kind: scan(root) for kind, root in roots.items()}
    for name in sorted(chosen):
        done = import_one(name, request["timeout_s"])
        for attempt in done["attempts"]:
            attempt.append(is_refused(*attempt))
        after = {kind: scan(root) for kind, root in roots.items()}
        done["changed"] = {kind: changes(before[kind], after[kind]) for kind in roots}
        done["again"] = []
        if done["changed"].get("image") and done["outcome"] == "ok":
            before = after
            import_one(name, request["timeout_s"])
            after = {kind: scan(root) for kind, root in roots.items()}
            done["again"] = changes(before["image"], after["image"])
        before = after
        done.update(module=name, distribution=chosen[name])
        say(done)


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        be_child(sys.argv[2], int(sys.argv[3]))
    else:
        main()
