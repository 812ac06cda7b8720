"""Launchers of a real image, used as if its programs were installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.wrap.conftest import Person

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wrap")]

WORDS = ("a b", "", "it's", '"q"', "line\nbreak", "--", "-x", "*", "$HOME", "ä", "\\")


@pytest.fixture(scope="module")
def envs(say_image: Path, cache_dir: Path, work: Path) -> Path:
    """A folder of launchers that is only read."""
    home = Path(tempfile.mkdtemp(dir=work))
    folder = work / "the launchers é"
    Person(home=home, cache=cache_dir).wrap(say_image, folder)
    return folder


def test_every_program_of_the_environment_has_one(envs: Path) -> None:
    names = {path.name for path in (envs / "bin").iterdir()}
    scripts = {"limpet-say", "limpet-both", "limpet-leave", "limpet-wait"}
    assert names >= {"python", "python3", "python3.13", "pip", *scripts}
    assert not {"activate", "start"} & names


def test_arguments_arrive_as_they_were(envs: Path, person: Person) -> None:
    done = person.run(envs / "bin/limpet-say", *WORDS)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["argv"] == ["/opt/env/bin/limpet-say", *WORDS]
    assert told["executable"] == "/opt/env/bin/python"
    assert done.stderr == ""


def test_variables_of_any_name_arrive_as_they_were(say_image: Path, person: Person) -> None:
    person.wrap(say_image, person.home / "env", "--variables", "host", "--only", "python")
    # `e` is unset by the runtime's own start script.
    names = [*"abcdfghijklmnopqrstuvwxyz", "name", "start", "line", "word", "text"]
    env = {name: f"the user's {name}" for name in names}
    look = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {names}}}))"
    run = ("--variables", "host", say_image, "python")
    for done in (
        person.run(person.home / "env/bin/python", "-c", look, env=env),
        person.limpet("run", *run, "-c", look, env=env),
    ):
        assert json.loads(done.stdout) == env, done.stderr


def test_input_output_and_exit_codes(envs: Path, person: Person) -> None:
    echo = "import sys; sys.stdout.write(sys.stdin.read()[::-1]); sys.stderr.write('e')"
    done = person.run(envs / "bin/python", "-c", echo, stdin="olleh")
    assert (done.stdout, done.stderr) == ("hello", "e")
    for code in (0, 1, 125, 200):
        assert person.run(envs / "bin/limpet-leave", str(code)).returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_program(envs: Path, person: Person, number: signal.Signals) -> None:
    running = subprocess.Popen(
        [envs / "bin/limpet-wait"],
        env=person.environment(),
        cwd=person.home,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    assert running.stdout.read() == f"told {number.name}\n"
    assert running.wait(30) == 7


def test_subprocesses_stay_inside(envs: Path, person: Person) -> None:
    done = person.run(envs / "bin/limpet-both")
    assert done.returncode == 0, done.stderr
    said, *rest = done.stdout.splitlines()
    assert json.loads(said)["prefix"] == "/opt/env"
    assert rest == ["/opt/env", "/opt/env", "[4]"]


def test_the_session_of_run(envs: Path, say_image: Path, person: Person) -> None:
    program = "import os; print(sorted(n for n in os.environ if n[:5] not in ('APPTA', 'SINGU')))"
    # Without a locale, Python sets one, also the one that `limpet run` starts in.
    env = {
        "LC_ALL": "C.UTF-8",
        "PYTHONUSERBASE": "/x",
        "CONDA_PREFIX": "/c",
        "SLURM_JOB_ID": "1",
        "FOO": "1",
    }
    (person.home / ".local").mkdir()
    launched = person.run(envs / "bin/python", "-c", program, env=env)
    started = person.limpet("run", say_image, "python", "-c", program, env=env)
    assert launched.stdout == started.stdout
    assert "SLURM_JOB_ID" in launched.stdout
    assert "FOO" not in launched.stdout


def test_found_by_path_by_links_and_relative(envs: Path, person: Person) -> None:
    path = {"PATH": f"{envs}/bin:{os.environ['PATH']}"}
    assert person.run("sh", "-c", "limpet-leave 3", env=path).returncode == 3
    links = person.home / "my bin"
    links.mkdir()
    (links / "limpet-leave").symlink_to(envs / "bin/limpet-leave")
    (links / "leave").symlink_to("limpet-leave")
    (links / "python").symlink_to(os.path.relpath(envs / "bin/limpet-leave", links))
    for name in ("limpet-leave", "leave", "python"):
        assert person.run(links / name, "4").returncode == 4
        assert person.run("sh", "-c", f"./{name} 5", cwd=links).returncode == 5
    assert person.run("./limpet-leave", "6", cwd=envs / "bin").returncode == 6
    assert person.run("sh", "limpet-leave", "6", cwd=envs / "bin").returncode == 6


def test_a_folder_that_was_moved_still_works(say_image: Path, person: Person) -> None:
    person.wrap(say_image, person.home / "before")
    link = person.home / "leave"
    link.symlink_to("after ä/bin/limpet-leave")
    (person.home / "before").rename(person.home / "after ä")
    leave = person.home / "after ä/bin/limpet-leave"
    assert person.run(leave, "3").returncode == 3
    assert person.run(link, "4").returncode == 4
    assert person.run("./limpet-leave", "5", cwd=leave.parent).returncode == 5


def test_nothing_is_forked_before_the_runtime(say_image: Path, person: Person) -> None:
    """The runtime stands for itself only: traced, the real one may stop for good."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "true"], capture_output=True).returncode:
        pytest.skip("strace cannot trace here")
    person.wrap(say_image, person.home / "env", "--only", "limpet-leave")
    launcher, runtime = person.home / "env/bin/limpet-leave", person.home / "apptainer"
    assert person.run(launcher, "0").returncode == 0  # makes the state's folders
    text, count = re.subn(
        "(?m)^_limpet_runtime=.*", f"_limpet_runtime='{runtime}'", launcher.read_text()
    )
    assert count == 1
    launcher.write_text(text)
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o755)
    for shell, most in (("bash", 0), ("dash", 1)):
        log = person.home / "trace"
        calls = "-etrace=clone,clone3,fork,vfork,execve"
        words = (strace, "-f", "-s", "4096", calls, "-o", log, shell, launcher, "0")
        assert person.run(*words).returncode == 0
        before: list[str] = []
        for line in log.read_text().splitlines():
            if "execve(" in line and "/apptainer" in line:
                break
            before.append(line)
        else:
            pytest.fail(f"no runtime was started: {before}")
        forks = [line for line in before if "fork(" in line or "clone" in line]
        assert len([line for line in forks if "resumed" not in line]) <= most, before
        assert sum("execve(" in line for line in before) == 1, before  # the shell itself


def test_inside_the_same_image_the_program_itself_is_started(
    envs: Path, say_image: Path, person: Person
) -> None:
    words = [str(envs / "bin/limpet-leave"), "9"]
    call = f"import subprocess, sys; sys.exit(subprocess.call({words!r}))"
    assert person.run(envs / "bin/python", "-c", call).returncode == 9


def test_inside_another_container_it_says_so(envs: Path, say_image: Path, person: Person) -> None:
    other = person.home / "other.sif"
    other.hardlink_to(say_image)
    bind = ("--bind", str(envs))
    done = person.limpet("run", *bind, other, f"{envs}/bin/limpet-leave", "9")
    assert done.returncode == 125
    assert "cannot be used from inside another container" in done.stderr


def test_a_job_that_inherits_a_containers_variables_is_not_inside(
    envs: Path, person: Person
) -> None:
    env = {"APPTAINER_CONTAINER": "/other.sif", "SINGULARITY_CONTAINER": "/other.sif"}
    assert person.run(envs / "bin/limpet-leave", "8", env=env).returncode == 8


# ---- virtual environments and editors ------------------------------------------------------------


def test_a_virtual_environment_on_top(envs: Path, person: Person) -> None:
    place = person.home / "on top"
    made = person.run(envs / "bin/python", "-m", "venv", "--system-site-packages", place)
    assert made.returncode == 0, made.stderr
    (place / "lib/python3.13/site-packages/mine.py").write_text("import limpetsay\nWHO = 'mine'\n")
    program = (
        "import sys, subprocess, mine, limpetsay\n"
        "print(sys.prefix, mine.WHO, limpetsay.__file__, flush=True)\n"
        "say = 'import sys, mine; print(sys.prefix)'\n"
        "subprocess.run([sys.executable, '-c', say], check=True)\n"
    )
    for name in ("python", "python3"):
        done = person.run(place / "bin" / name, "-c", program, cwd=Path("/tmp"))
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        inside = "/opt/env/lib/python3.13/site-packages/limpetsay.py"
        assert first == f"{place} mine {inside}"
        assert second == str(place)
    pip = person.run(place / "bin/pip", "--version")
    assert str(place) in pip.stdout, pip.stderr


def test_a_virtual_environment_apart(envs: Path, person: Person) -> None:
    place = person.home / "apart"
    assert person.run(envs / "bin/python3", "-m", "venv", "--without-pip", place).returncode == 0
    done = person.run(place / "bin/python", "-c", "import limpetsay")
    assert done.returncode == 1
    assert "No module named" in done.stderr


def test_what_an_editor_asks_of_an_interpreter(envs: Path, person: Person) -> None:
    python = envs / "bin/python"
    script = person.home / "ask.py"
    script.write_text("import sys, json; print(json.dumps([sys.version_info[:2], sys.prefix]))\n")
    asked = person.run(python, "-I", script)
    assert json.loads(asked.stdout) == [[3, 13], "/opt/env"], asked.stderr
    listed = person.run(python, "-m", "pip", "list", "--format", "json")
    assert "limpetsay" in {package["name"] for package in json.loads(listed.stdout)}


# ---- what goes wrong -----------------------------------------------------------------------------


def test_an_image_that_is_gone_and_a_runtime_that_is_gone(say_image: Path, person: Person) -> None:
    image = person.home / "mine.sif"
    image.hardlink_to(say_image)
    folder = person.home / "env"
    person.wrap(image, folder)
    script = folder / "bin/limpet-leave"
    text = script.read_text()
    script.write_text(text.replace("_limpet_runtime=/", "_limpet_runtime=/gone/"))
    assert person.run(script, "3").returncode == 3  # another one is in PATH
    done = person.run("/bin/sh", script, "3", env={"PATH": "/nowhere"})
    assert done.returncode == 125
    assert "Neither apptainer nor singularity" in done.stderr
    image.unlink()
    done = person.run(script, "3")
    assert done.returncode == 125
    assert f"The image {image} is gone" in done.stderr
    assert f"limpet update {folder}" in done.stderr


def test_a_working_folder_that_is_gone(envs: Path, person: Person) -> None:
    gone = person.home / "gone"
    gone.mkdir()
    words = ["sh", "-c", f"rmdir '{gone}'; '{envs}/bin/limpet-leave' 3"]
    done = person.run(*words, cwd=gone)
    assert done.returncode == 125
    assert "does not exist any more" in done.stderr


# ---- --host and foreign images -------------------------------------------------------------------


def test_the_hosts_folders_and_commands(
    say_image: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = person.home / "env"
    person.wrap(say_image, folder, "--host")
    tools = person.home / "host tools"
    tools.mkdir()
    (tools / "host-tool").write_text("#!/bin/sh\necho from the host\n")
    (tools / "python").write_text("#!/bin/sh\necho wrong\n")
    for name in ("host-tool", "python"):
        (tools / name).chmod(0o755)
    top = [p for p in Path("/").iterdir() if p.is_dir() and os.access(p, os.X_OK)]
    program = (
        "import os, json, subprocess; print(json.dumps([os.listdir('/'), os.environ.get('FOO'), "
        "os.environ.get('PYTHONPATH'), subprocess.getoutput('host-tool'), "
        "subprocess.getoutput('command -v python')]))"
    )
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "FOO": "1", "PYTHONPATH": "/x"}
    done = person.run(folder / "bin/python", "-c", program, env=env)
    assert done.returncode == 0, done.stderr
    root, foo, pythonpath, said, python = json.loads(done.stdout)
    hidden = {p.name for p in top if p.name.startswith((".", "lost+found"))}
    assert {p.name for p in top} - hidden <= set(root)
    assert (foo, said, python) == ("1", "from the host", "/opt/env/bin/python")
    assert pythonpath != "/x"


def test_the_command_of_a_module_that_is_loaded(say_image: Path, person: Person) -> None:
    init = Path("/usr/share/lmod/lmod/init/bash")
    if not init.exists():
        pytest.skip("Lmod is not installed")
    folder, tools = person.home / "env", person.home / "host tools"
    person.wrap(say_image, folder, "--host")
    tools.mkdir()
    (tools / "module-tool").write_text("#!/bin/sh\necho from the module\n")
    (tools / "module-tool").chmod(0o755)
    (person.home / "modules").mkdir()
    (person.home / "modules/tool.lua").write_text(f'prepend_path("PATH", "{tools}")\n')
    script = f"""
    . {init}
    module use '{person.home}/modules'
    module load tool
    '{folder}/bin/python' -c 'import subprocess; subprocess.run(["module-tool"], check=True)'
    """
    done = person.run("bash", "-c", script, env={"LMOD_SYSTEM_DEFAULT_MODULES": ""})
    assert done.stdout == "from the module\n", done.stderr


def test_folders_of_a_foreign_image(debian_base: object, person: Person) -> None:
    sif = debian_base.sif  # type: ignore[attr-defined]
    told = person.wrap(sif, person.home / "py")
    assert "python3" in told["programs"]  # type: ignore[operator]
    assert "ls" not in told["programs"]  # type: ignore[operator]
    done = person.run(person.home / "py/bin/python3", "-c", "import sys; print(sys.prefix)")
    assert done.stdout == "/usr\n", done.stderr
    told = person.wrap(
        sif, person.home / "all", "--folder", "/usr/bin", "--only", "ls", "--only", "pe*"
    )
    assert {"ls", "perl"} <= set(told["programs"])  # type: ignore[call-overload]
    done = person.run(person.home / "all/bin/ls", "/etc/debian_version")
    assert done.stdout == "/etc/debian_version\n", done.stderr
    missing = person.limpet("wrap", sif, person.home / "no", "--folder", "/no/such")
    assert missing.returncode == 8
    assert "has no folder /no/such" in missing.stderr


# ---- Jupyter and modules -------------------------------------------------------------------------


CLIENT = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=90)
seen = []
def hook(message):
    if message["msg_type"] == "stream":
        seen.append(message["content"]["text"])
try:
    client.execute_interactive("import sys; print(6 * 7, sys.prefix)", output_hook=hook, timeout=60)
    waits = client.execute("print('waits', flush=True); import time; time.sleep(60)")
    while client.get_iopub_msg(timeout=60)["content"].get("text") != "waits\\n":
        pass
    manager.interrupt_kernel()
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"]["msg_id"] == waits:
            break
    print(reply["content"]["ename"])
    client.execute_interactive("print('alive')", output_hook=hook, timeout=60)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=False)
print("".join(seen))
"""


@pytest.mark.parametrize("where", ["home", "data"])
def test_a_jupyter_client_runs_a_cell_in_the_image(
    kernel_image: Path, person: Person, where: str
) -> None:
    (person.home / ".local").mkdir()
    env = {"JUPYTER_DATA_DIR": str(person.home / "my data")} if where == "data" else {}
    made = person.limpet("wrap", kernel_image, person.home / "env", "--kernel", "Astro", env=env)
    assert made.returncode == 0 and "needs ipykernel" not in made.stdout, made.stderr
    data = person.home / (".local/share/jupyter" if where == "home" else "my data")
    spec = json.loads((data / "kernels/astro/kernel.json").read_text())
    assert spec["argv"][0] == str(person.home / "env/bin/python")
    done = person.run(sys.executable, "-c", CLIENT, "astro", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["KeyboardInterrupt", "42 /opt/env", "alive"]


@pytest.mark.parametrize("suffix", [".lua", ""])
def test_a_modulefile_for_lmod(
    say_image: Path, person: Person, tmp_path: Path, suffix: str
) -> None:
    init = Path("/usr/share/lmod/lmod/init/bash")
    if not init.exists():
        pytest.skip("Lmod is not installed")
    modules = tmp_path / "modules"  # Lmod cannot read Tcl below a path with a space
    folder = person.home / "env x"
    person.wrap(say_image, folder, "--module", modules / f"say{suffix}")
    script = f"""
    . {init}
    module use '{modules}'
    module load say
    command -v limpet-leave
    limpet-leave 3; echo $?
    module whatis say 2>&1 | grep -c limpet
    module unload say
    command -v limpet-leave || echo gone
    """
    done = person.run("bash", "-c", script, env={"LMOD_SYSTEM_DEFAULT_MODULES": ""})
    lines = done.stdout.split()
    assert done.stdout.splitlines()[0] == f"{folder}/bin/limpet-leave", done.stderr
    assert lines[-1] == "gone"
    assert "3" in done.stdout.splitlines()
    assert lines[-2] != "0"
