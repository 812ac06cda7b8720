"""Run by each Python of a base with -I: tells about itself in one line of JSON. Python >= 3.6."""

import json
import os
import platform
import sys


def ask_metadata():
    """Distributions by importlib.metadata; the first of a name on sys.path is in use."""
    from importlib.metadata import distributions

    for dist in distributions():
        if dist.metadata["Name"]:
            location = str(dist.locate_file(""))
            yield (
                dist.metadata["Name"],
                dist.version,
                dist.metadata.get_all("Requires-Dist"),
                location,
            )


def read_folders():
    """The same for Python 3.6 and 3.7, from the METADATA and PKG-INFO files themselves."""
    from email.parser import Parser

    for folder in sys.path:
        if not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if name.endswith(".dist-info"):
                path = os.path.join(path, "METADATA")
            elif name.endswith(".egg-info") and os.path.isdir(path):
                path = os.path.join(path, "PKG-INFO")
            elif not name.endswith(".egg-info"):
                continue
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    said = Parser().parse(file, headersonly=True)
                if said["Name"]:
                    yield said["Name"], said["Version"], said.get_all("Requires-Dist"), folder


def list_distributions():
    try:
        import importlib.metadata  # noqa: F401

        found = ask_metadata()
    except ImportError:
        found = read_folders()
    seen = {}
    for name, version, requires, location in found:
        key = name.lower().replace("_", "-").replace(".", "-")
        if key not in seen and version:
            described = {"name": name, "version": version, "location": location}
            described["requires"] = [" ".join(line.split()) for line in requires or ()]
            seen[key] = described
    return [seen[key] for key in sorted(seen)]


def markers():
    """The environment of PEP 508 markers."""
    implementation = sys.implementation.version
    version = "{}.{}.{}".format(*implementation[:3])
    if implementation.releaselevel != "final":
        version += implementation.releaselevel[0] + str(implementation.serial)
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def main():
    import sysconfig
    from importlib.util import MAGIC_NUMBER

    managed = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    described = {
        "path": sys.argv[1],
        "version": platform.python_version(),
        "implementation": sys.implementation.name,
        "prefix": sys.prefix,
        "magic": MAGIC_NUMBER.hex(),
        "externally_managed": os.path.exists(managed) and sys.prefix == sys.base_prefix,
        "markers": markers(),
        "distributions": list_distributions(),
    }
    print("\npython " + json.dumps(described, sort_keys=True))


main()
