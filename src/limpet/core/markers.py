"""The variables of PEP 508 markers for a Python on Linux that is not the one which runs here."""

from __future__ import annotations


def linux_markers(python: str, arch: str, implementation: str = "cpython") -> dict[str, str]:
    """For `python` (full version); the kernel's release and version are nobody's to know."""
    return {
        "implementation_name": implementation,
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }
