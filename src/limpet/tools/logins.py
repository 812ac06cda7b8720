"""Logins for registries, from where Apptainer, SingularityCE and Docker keep them."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from limpet.core.login import Login
from limpet.tools import process

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


def find_login(host: str, environment: Mapping[str, str] | None = None) -> Login | None:
    """What is known for a registry: variables first, as Apptainer does, then the files."""
    env = os.environ if environment is None else environment
    for prefix in ("APPTAINER_DOCKER", "SINGULARITY_DOCKER", "DOCKER"):
        user, password = env.get(f"{prefix}_USERNAME"), env.get(f"{prefix}_PASSWORD")
        if user and password:
            return Login(user=user, password=password)
    for path in _config_files(env):
        login = _login_in(_read_config(path), host)
        if login:
            return login
    return None


def _config_files(env: Mapping[str, str]) -> Iterator[Path]:
    home = Path(env.get("HOME") or Path.home())
    yield Path(env.get("APPTAINER_CONFIGDIR") or home / ".apptainer") / "docker-config.json"
    yield Path(env.get("SINGULARITY_CONFIGDIR") or home / ".singularity") / "docker-config.json"
    yield Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}  # a broken file of another program: the registry will say that a login is needed
    return read if isinstance(read, dict) else {}


def _login_in(config: Mapping[str, Any], host: str) -> Login | None:
    keys = _HUB_KEYS if host == "docker.io" else (host, f"https://{host}", f"http://{host}")
    helpers = config.get("credHelpers") or {}
    for key in keys:
        helper = helpers.get(key) or config.get("credsStore")
        login = _ask_helper(str(helper), key) if helper else None
        login = login or _stored(config.get("auths") or {}, key)
        if login:
            return login
    return None


def _stored(auths: Mapping[str, Any], key: str) -> Login | None:
    found = auths.get(key) or auths.get(f"{key}/") or auths.get(f"{key}/v2/") or {}
    if not isinstance(found, dict) or not found:
        return None
    user, password = str(found.get("username", "")), str(found.get("password", ""))
    if found.get("auth"):
        try:
            decoded = base64.b64decode(found["auth"]).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        user, _, password = decoded.partition(":")
    token = str(found.get("identitytoken", ""))
    return Login(user=user, password=password, identity_token=token) if user or token else None


def _ask_helper(helper: str, key: str) -> Login | None:
    program = process.find_program(f"docker-credential-{helper}")
    if program is None:
        return None
    done = process.run([program, "get"], input_bytes=key.encode(), timeout_s=60)
    if done.code != 0:
        return None  # helpers say so where they know nothing of a registry
    try:
        said = json.loads(done.stdout)
        user, secret = said["Username"], said["Secret"]
    except (ValueError, KeyError, TypeError):
        return None
    if user == "<token>":
        return Login(identity_token=secret)
    return Login(user=user, password=secret)
