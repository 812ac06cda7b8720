from __future__ import annotations

import subprocess

from limpet.tools.runtime_files import render_environment, render_runscript

AWKWARD = [
    "plain=1",
    "quotes=a\"b'c",
    "dollar=$HOME `id`",
    "brace=a}b${c}",
    "space= a  b",
    "back=\\",
]


def run(script: str, *args: str, env: dict[str, str] | None = None) -> str:
    argv = ["/bin/sh", "-c", script, "sh", *args]
    done = subprocess.run(argv, env=env or {}, capture_output=True, text=True, check=True)
    return done.stdout


def test_values_reach_the_environment_as_they_are() -> None:
    for line in AWKWARD:
        name, _, value = line.partition("=")
        said = run(render_environment([line]) + f'printf %s "${name}"')
        assert said == value


def test_a_value_from_outside_wins_but_for_path() -> None:
    script = render_environment(["A=image", "PATH=/image", "1bad=x"]) + 'echo "$A $PATH"'
    assert run(script, env={"A": "outside", "PATH": "/host"}) == "outside /image\n"


def test_runscript_is_entrypoint_and_command() -> None:
    assert run(render_runscript(["echo", "a b"], ["c"])) == "a b c\n"
    assert run(render_runscript(["echo", "a b"], ["c"]), "d  e") == "a b d  e\n"
    assert run(render_runscript([], ["echo", "c"])) == "c\n"
    assert run(render_runscript([], ["false"]), "echo", "x") == "x\n"
    assert run(render_runscript([], "echo $((1+1))")) == "2\n"
