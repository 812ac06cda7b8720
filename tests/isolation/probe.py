"""Run inside by the image's own Python: says in one line of JSON what it sees of the host.

Each look is where the program that it is named after looks (its documentation says so).
"""

import json
import os
import site
import subprocess
import sys

HOME = os.environ.get("HOME", "/")


def below(variable, *default):
    return os.environ.get(variable) or os.path.join(HOME, *default)


def read(*path):
    try:
        with open(os.path.join(*path)) as file:
            return "poison" in file.read()
    except OSError:
        return False


def said(*argv):
    env = dict(os.environ, PYTHON_HISTORY="/dev/null")  # the history is the user's to keep
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=-2, timeout=30, env=env)
    return done.stdout.decode()


def numpy_version():
    try:
        import numpy
    except ImportError:
        return "none"
    from importlib.metadata import version

    return numpy.__version__ if numpy.__version__ == version("numpy") else "mixed"


def write_everywhere():
    """What packages and pip do: write to their own places in the home."""
    config = below("XDG_CONFIG_HOME", ".config")
    cache = below("XDG_CACHE_HOME", ".cache")
    places = [config, cache, below("KERAS_HOME", ".keras"), below("IPYTHONDIR", ".ipython")]
    places += [below("JUPYTER_CONFIG_DIR", ".jupyter"), site.getuserbase()]
    written = 0
    for place in places:
        try:
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, "written-inside"), "w") as file:
                file.write("x")
            written += 1
        except OSError:
            pass
    return written


HOST_CONDA = os.path.join(HOME, "miniconda3")
with open("/proc/self/maps") as mapped:
    maps = mapped.read()
config = below("XDG_CONFIG_HOME", ".config")
startup_of = below("IPYTHONDIR", ".ipython")
bash = said("bash", "-i", "-c", 'echo "$PATH"; command -v python3; type python3')
seen = {
    "numpy": numpy_version(),
    "PYTHONPATH": any(os.path.exists(os.path.join(p, "poison_path.py")) for p in sys.path),
    "PYTHONHOME": os.environ.get("PYTHONHOME") == "/no/such/python",
    "PYTHONUSERBASE": site.getuserbase().endswith("/userbase"),
    "CONDA": any(v.startswith(HOST_CONDA) for n, v in os.environ.items() if n.startswith("CONDA"))
    or os.environ.get("CONDA_DEFAULT_ENV") == "base",
    "VIRTUAL_ENV": os.environ.get("VIRTUAL_ENV", "").endswith("/venv"),
    "LD_LIBRARY_PATH": "/no/such" in os.environ.get("LD_LIBRARY_PATH", ""),
    "LD_PRELOAD": "poison.so" in maps or "poison" in os.environ.get("LD_PRELOAD", ""),
    "user site": getattr(sys, "poisoned_by_pth", False),
    "PYTHONSTARTUP": "PYTHONSTARTUP" in said(sys.executable, "-q", "-i"),
    "BASH_ENV": "BASH_ENV" in said("bash", "-c", ":"),
    "matplotlib": read(below("MPLCONFIGDIR", config, "matplotlib"), "matplotlibrc"),
    "IPython": read(startup_of, "profile_default/startup/00-poison.py"),
    "Jupyter": read(below("JUPYTER_CONFIG_DIR", ".jupyter"), "jupyter_config.py"),
    "Keras": read(below("KERAS_HOME", ".keras"), "keras.json"),
    "conda's list": read(HOME, ".conda/environments.txt"),
    ".condarc": read(os.environ.get("CONDARC") or os.path.join(HOME, ".condarc")),
    "pip": read(HOME, ".pip/pip.conf") or read(config, "pip/pip.conf"),
    "conda's hook": "miniconda3" in bash or "poison" in bash,
    "other files": os.path.exists(os.path.join(HOME, "notes.txt")),
    "written": write_everywhere(),
    "python": sys.prefix,
    "environment": dict(os.environ),
    "cwd": os.getcwd(),
}
json.dump(seen, sys.stdout)
