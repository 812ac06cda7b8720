"""`limpet check IMAGE --imports`: what imports try to write, by really importing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.actions.image_known import with_known
from limpet.core.errors import HostError, ImageError, UsageError
from limpet.core.launch import Launch, plan_launch
from limpet.core.mounts import Mount, is_below, render_mount
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.writes import ImportSeen, ImportsReport, Setting, judge_imports
from limpet.tools import apptainer, files, host, images, process
from limpet.tools.config import read_config

SCRIPT = Path(__file__).parent.parent / "base_scripts" / "import_probe.py"
INSIDE = "/opt/limpet"
_PYTHON = 'exec "$(command -v python3 || command -v python || echo python3)" "$@"'


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """The probe's first line."""

    python: str
    prefix: str
    modules: int


def check_imports(
    image: str,
    names: Sequence[str] = (),
    *,
    timeout_s: float = 60,
    config_file: str = "",
    cache_dir: str = "",
) -> ImportsReport:
    """Import each top-level package (or those named) and judge what it does to the image.

    Everything that is written goes to folders that are removed afterwards.
    """
    if timeout_s <= 0:
        raise UsageError(f"--timeout {timeout_s:g}: it must be more than 0 seconds.")
    seen = images.read_image(image)
    runtime = apptainer.probe_runtime()
    here = host.probe_host(
        runtime=str(runtime.path), runtime_kind=runtime.kind, runtime_version=runtime.version
    )
    cache = files.cache_folder(cache_dir or read_config(config_file).cache_dir)
    seen = with_known(seen, cache)
    with files.passing_folder(cache / "tmp", prefix="check-") as folder:
        run = _Run(seen, here, folder, tuple(names), timeout_s)
        _, plain = run.go("plain", layer="")
        layered = run.can_layer()
        told, over = run.go("over", layer="folder" if layered else "memory")
    if not plain and names:
        raise UsageError(f"{seen.path} has nothing named {', '.join(names)}.")
    setting = Setting(
        image=seen.path, is_limpets=seen.facts is not None, home=here.home, timeout_s=timeout_s
    )
    return ImportsReport(
        image=seen.path,
        python=told.python,
        modules=tuple(item.module for item in plain),
        layered=layered,
        findings=judge_imports(plain, over, setting),
    )


class _Run:
    """The probe, started in an image with throw-away folders for all that is written."""

    def __init__(
        self, image: ImageSeen, here: HostSeen, scratch: Path, names: tuple[str, ...], limit: float
    ) -> None:
        self._image = image
        self._here = here
        self._scratch = scratch
        self._names = names
        self._timeout_s = limit

    def can_layer(self) -> bool:
        """Whether a folder can be laid over the image here."""
        trial = self._scratch / "trial"
        launch = self._plan(trial, ("true",), "folder")
        return process.run(launch.argv, env=launch.env, timeout_s=120).code == 0

    def go(self, name: str, *, layer: str) -> tuple[_Told, list[ImportSeen]]:
        """Import everything once; `layer`: empty, "folder", or "memory"."""
        work = self._scratch / name
        command = ("/bin/sh", "-c", _PYTHON, "sh", f"{INSIDE}/import_probe.py")
        launch = self._plan(work, command, layer)
        roots = {"home": f"{INSIDE}/state/{self._image.identity}/home"}
        if layer == "folder":
            roots["image"] = f"{INSIDE}/layer/upper"
        request = {"names": self._names, "timeout_s": self._timeout_s, "roots": roots}
        done = process.run(launch.argv, env=launch.env, input_bytes=msgspec.json.encode(request))
        lines = [line for line in done.stdout.splitlines() if line.startswith(b"{")]
        if done.code or not lines:
            raise (ImageError if done.code in (1, 127) else HostError)(
                f"The Python of {self._image.path} could not be asked.",
                why=done.stderr.strip()[-1000:],
                now="Start it by hand to see why: limpet run IMAGE python3 -c 1",
            )
        told = msgspec.json.decode(lines[0], type=_Told)
        return told, [msgspec.json.decode(line, type=ImportSeen) for line in lines[1:]]

    def _plan(self, work: Path, command: tuple[str, ...], layer: str) -> Launch:
        state = work / "state"
        for folder in (work / "tmp", work / "layer", state):
            folder.mkdir(parents=True, exist_ok=True)
        (work / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        variables = {n: v for n, v in self._here.environment.items() if n != "TMPDIR"}
        here = msgspec.structs.replace(
            self._here, state=str(state), cwd="/", environment=variables, personal={}
        )
        request = Request(command=command, home="private", pwd="/", verbose=False)
        launch = plan_launch(self._image, here, request)
        host.make_private(launch.folders, str(state))
        for point in map(Path, launch.points):  # this /tmp is not the host's
            ours = is_below(str(point), str(state)) or not is_below(str(point), "/tmp")
            place = point if ours else work / point.relative_to("/")
            place.mkdir(parents=True, exist_ok=True)
        mounts = [
            Mount(source=str(work), target=INSIDE),
            Mount(source=str(work / "tmp"), target="/tmp"),
        ]
        if is_below(here.home, "/tmp"):  # the runtime's mount of /tmp covers such a home
            (work / "tmp" / Path(here.home).relative_to("/tmp")).mkdir(parents=True, exist_ok=True)
            mounts.append(Mount(source=f"{state}/{self._image.identity}/home", target=here.home))
        options = [word for mount in mounts for word in render_mount(mount)]
        if layer == "folder":
            options += ["--overlay", str(work / "layer")]
        elif layer == "memory":
            options.append("--writable-tmpfs")
        at = launch.argv.index("--no-eval")
        argv = (*launch.argv[:at], *options, *launch.argv[at:])
        return msgspec.structs.replace(launch, argv=argv)
