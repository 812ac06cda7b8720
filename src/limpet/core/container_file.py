"""A blueprint as text: a Dockerfile, or a definition file for Apptainer and SingularityCE."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from limpet.core.blueprint import Blueprint, Copy, Stage, Step
from limpet.core.errors import RecipeError, UsageError
from limpet.core.facts import PREFIX
from limpet.core.reference import Reference
from limpet.core.skeleton import plan_conda_frame, render_env_script

USER = "user"
USER_ID = 10001  # Ubuntu's images have somebody as 1000 already


def render_dockerfile(plan: Blueprint) -> str:
    """For docker, podman and buildah, without anything that only the newest of them read."""
    lines = [*_head(plan, "docker build -t NAME ."), ""]
    bases = {stage.origin.text: _image_name(stage.origin) for stage in plan.stages}
    shared = len(plan.stages) > 1 and _shared_system(plan)
    if shared:
        first = plan.stages[-1]
        lines += [*_from(first.origin, bases, "system"), *_runs(shared), ""]
    for stage in plan.stages:
        own = tuple(step for step in stage.system if not shared or step not in shared)
        if shared and stage.system[: len(shared)] == shared:
            lines.append(f"FROM system{f' AS {stage.name}' if stage.name else ''}")
        else:
            lines += _from(stage.origin, bases, stage.name)
        lines += ["USER root"] if stage.name == "conda" else []
        lines += _runs(own)
        if stage is plan.stages[-1]:
            lines += _new_user(plan)
        lines += map(_copy, stage.copies)
        lines += [*_runs(stage.steps), ""]
    lines += [*_docker_end(plan), ""]
    return "\n".join(lines)


def _shared_system(plan: Blueprint) -> tuple[Step, ...]:
    """The steps that all stages on the base begin with: made once."""
    on_base = [stage.system for stage in plan.stages if stage.name != "conda"]
    return on_base[0] if len(on_base) > 1 else ()


def _head(plan: Blueprint, command: str) -> list[str]:
    lock = plan.lock
    python = f"Python {lock.python}" if lock.python else "no Python"
    lines = [
        f"# Written by limpet from a lock: {python} on {lock.base.reference}, "
        f"{len(lock.conda) + len(lock.packages)} packages.",
        f"# Build it in this folder: {command}",
    ]
    return lines + [f"# {note}" for note in plan.notes]


def _image_name(origin: Reference) -> str:
    if origin.scheme != "docker":
        raise UsageError(
            f"A Dockerfile cannot start from {origin.text}.",
            why="It starts from an image in a registry.",
            now="Name one with the same content: --base docker://registry.example.org/name@sha256:…",
        )
    tag = f":{origin.tag}" if origin.tag else ""
    return f"{origin.host}/{origin.name}{tag}{f'@{origin.digest}' if origin.digest else ''}"


def _from(origin: Reference, bases: Mapping[str, str], name: str) -> list[str]:
    lines = [f"FROM {bases[origin.text]}{f' AS {name}' if name else ''}"]
    if not origin.digest:
        lines.insert(0, "# The lock has no digest of this image; add it here (@sha256:…).")
    return lines


def _runs(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        yield f"# {step.comment}"
        text = " \\\n    && ".join("\n    ".join(command) for command in step.commands)
        yield f"RUN {text}"


def _copy(copy: Copy) -> str:
    source = f"--from={copy.stage} " if copy.stage else ""
    if not copy.stage and copy.source.startswith(("/", "..")):
        raise UsageError(
            f"A Dockerfile cannot copy {copy.source}.",
            why="It copies from its own folder and those below it.",
            now="Write it with -o to a folder that has all files below it.",
        )
    if any(letter.isspace() for letter in copy.source + copy.target):
        return f"COPY {source}{json.dumps([copy.source, copy.target], ensure_ascii=False)}"
    return f"COPY {source}{copy.source} {copy.target}"


def _new_user(plan: Blueprint) -> list[str]:
    made = f"useradd --create-home --uid {USER_ID} --shell /bin/sh {USER}"
    if plan.musl:
        made = f"adduser -D -u {USER_ID} {USER}"
    return ["# Nobody in particular: programs have no need of root.", f"RUN {made}"]


def _docker_end(plan: Blueprint) -> list[str]:
    path = f"{PREFIX}/bin:$PATH"
    variables = [("PATH", path)]
    variables += [("VIRTUAL_ENV", PREFIX)] if not plan.lock.conda else []
    variables += [("PYTHONNOUSERSITE", "1")]
    if plan.lock.conda:
        variables += [("CONDA_PREFIX", PREFIX), ("CONDA_DEFAULT_ENV", PREFIX), ("CONDA_SHLVL", "1")]
    own = [*plan.environment, *plan.recipe.env.items()]
    lines = [f"ENV {name}={value}" for name, value in variables]
    lines += [f"ENV {name}={_docker_value(name, value)}" for name, value in own]
    lines += map(_copy, plan.files)
    lines += [f"RUN {command}" for command in plan.warm]
    lines += [
        f"LABEL {_docker_value(name, name)}={_docker_value(name, value)}"
        for name, value in _labels(plan).items()
    ]
    return [*lines, f"USER {USER}", f"WORKDIR /home/{USER}", 'CMD ["python"]']


def _docker_value(name: str, value: str) -> str:
    if "\n" in value or "\r" in value:
        raise RecipeError(
            f"{name} cannot be set by a Dockerfile.", why="Its value has a line break."
        )
    for letter in '\\"$':
        value = value.replace(letter, f"\\{letter}")
    return f'"{value}"'


def _labels(plan: Blueprint) -> dict[str, str]:
    base = plan.lock.base
    own = {
        "org.opencontainers.image.base.name": base.reference,
        "org.opencontainers.image.base.digest": base.digest,
    }
    return own | plan.recipe.image.labels


def render_definition(plan: Blueprint) -> str:
    """For `apptainer build` and `singularity build`."""
    lines = _head(plan, "apptainer build --fakeroot NAME.sif FILE")
    many = len(plan.stages) > 1
    for stage in plan.stages:
        last = stage is plan.stages[-1]
        lines += ["", *_bootstrap(stage.origin)]
        lines += [f"Stage: {stage.name or 'final'}"] if many else []
        lines += _definition_copies(stage, plan.files if last else ())
        script = list(_script((*stage.system, *stage.steps)))
        if last and plan.warm:
            script += ["", f"export PATH={PREFIX}/bin:$PATH", *plan.warm]
        if script:
            lines += ["", "%post", *(f"    {line}".rstrip() for line in ["set -e", *script])]
    lines += _definition_end(plan)
    return "\n".join((*lines, ""))


def _bootstrap(origin: Reference) -> list[str]:
    scheme = origin.scheme
    if scheme == "path":
        return ["Bootstrap: localimage", f"From: {origin.path}"]
    if scheme in ("oci", "oci-archive"):
        tag = f":{origin.tag}" if origin.tag else ""
        return [f"Bootstrap: {scheme}", f"From: {origin.path}{tag}"]
    if scheme == "library":
        return ["Bootstrap: library", f"From: {origin.name}"]
    place = f"{origin.host}/{origin.name}"
    # Apptainer's docker source takes a tag or a digest, not both.
    comment = f"# {place}:{origin.tag}" if origin.tag and origin.digest else ""
    version = f"@{origin.digest}" if origin.digest else f":{origin.tag}"
    lines = [f"Bootstrap: {scheme}", f"From: {place}{version}"]
    return [comment, *lines] if comment else lines


def _definition_copies(stage: Stage, files: tuple[Copy, ...]) -> Iterator[str]:
    for copy in stage.copies:
        if copy.stage:
            yield from ("", f"%files from {copy.stage}", f"    {copy.source} {copy.target}")
    hosts = [*(copy for copy in stage.copies if not copy.stage), *files]
    if hosts:
        yield from ("", "%files")
        yield from (f"    {_definition_word(c.source)} {_definition_word(c.target)}" for c in hosts)


def _definition_word(text: str) -> str:
    if '"' in text or "\n" in text:
        raise RecipeError(f"A definition file cannot copy {text!r}.", why="It has a quote in it.")
    return f'"{text}"' if any(letter.isspace() or letter == "'" for letter in text) else text


def _script(steps: Iterable[Step]) -> Iterator[str]:
    for number, step in enumerate(steps):
        if number:
            yield ""
        yield f"# {step.comment}"
        for command in step.commands:
            yield from command


def _definition_end(plan: Blueprint) -> list[str]:
    env = {**dict(plan.environment), **plan.recipe.env}
    script = render_env_script(plan.base_variables, env, plan_conda_frame(plan.lock))
    exports = script.rstrip("\n").split("\n")[1:]
    lines = ["", "%environment", "    # The environment, and nothing of the host's Python."]
    lines += [f"    {line}" for line in exports]
    if plan.lock.conda:
        lines += [
            f"    for script in {PREFIX}/etc/conda/activate.d/*.sh; do",
            '        [ ! -f "$script" ] || . "$script"',
            "    done",
        ]
    lines += ["", "%labels", *(f"    {name} {value}" for name, value in _labels(plan).items())]
    program = f"{PREFIX}/bin/python" if plan.lock.python else "/bin/sh"
    run = ["if [ $# -eq 0 ]; then", f"    exec {program}", "fi", 'exec "$@"']
    return [*lines, "", "%runscript", *(f"    {line}" for line in run)]
