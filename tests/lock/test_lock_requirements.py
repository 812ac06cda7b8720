from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.core.errors import RecipeError
from limpet.core.requirements import (
    check_requirement,
    expand,
    find_hashes,
    local_path,
    parse_requirements,
)


def _kinds(text: str) -> list[tuple[str, str]]:
    return [(line.kind, line.text) for line in parse_requirements(text)]


def test_lines_comments_continuations_and_options() -> None:
    text = (
        "\ufeff# first\n"
        "numpy>=1 # why\n"
        "six==1.0 \\\n"
        "    --hash=sha256:AA \\\n"
        "    --hash=sha256:bb\n"
        "-r other.txt\n-rshort.txt\n--requirement=long.txt\n"
        "-c limits.txt\n-e ./here\n-f ./links\n--index-url https://h/simple\n"
        "pkg @ https://h/p-1.0.zip#egg=pkg\n"
        "\n"
    )
    assert _kinds(text) == [
        ("requirement", "numpy>=1"),
        ("requirement", "six==1.0     --hash=sha256:AA     --hash=sha256:bb"),
        ("nested", "other.txt"),
        ("nested", "short.txt"),
        ("nested", "long.txt"),
        ("constraints", "limits.txt"),
        ("editable", "./here"),
        ("find_links", "./links"),
        ("option", "--index-url https://h/simple"),
        ("requirement", "pkg @ https://h/p-1.0.zip#egg=pkg"),
    ]


def test_line_numbers_are_those_of_the_first_physical_line() -> None:
    lines = parse_requirements("a\n\nb \\\n  >=1\nc\n")
    assert [(line.number, line.text) for line in lines] == [(1, "a"), (3, "b   >=1"), (5, "c")]


def test_a_comment_ends_a_continuation() -> None:
    assert _kinds("a \\\n# comment \\\nb\n") == [("requirement", "a"), ("requirement", "b")]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("./proj", "./proj"),
        ("../proj[a,b]", "../proj"),
        (".", "."),
        (".[all]", "."),
        ("sub/dir", "sub/dir"),
        ("/abs/with space/x.whl", "/abs/with space/x.whl"),
        ("x-1.0-py3-none-any.whl", "x-1.0-py3-none-any.whl"),
        ("name @ file:rel/dir", "rel/dir"),
        ("name[x] @ file:///a/b%20c#subdirectory=d", "/a/b c"),
        ("name @ file://localhost/a", "/a"),
        ("./p ; python_version > '3'", "./p"),
        ("./x.whl --hash=sha256:00", "./x.whl"),
        ("name @ ./near", "./near"),
        ("numpy", ""),
        ("numpy>=1.0; sys_platform == 'linux'", ""),
        ("numpy[a] == 1.*", ""),
        ("n @ https://h/x.whl", ""),
        ("n @ git+file:///a/b", ""),
        ("git+https://h/x", ""),
        ("https://h/x.tar.gz", ""),
    ],
)
def test_local_paths(text: str, path: str) -> None:
    assert local_path(text) == path


def test_only_braced_upper_case_variables_are_expanded() -> None:
    variables = {"TOKEN": "t", "lower": "x", "EMPTY": ""}
    assert expand("${TOKEN} $TOKEN ${lower} ${EMPTY} ${NONE}", variables) == (
        "t $TOKEN ${lower} ${EMPTY} ${NONE}"
    )


def test_hashes_are_gathered_by_normalised_name() -> None:
    lines = parse_requirements(
        "A.b==1 --hash=sha256:0A\na_B==2; python_version<'3' --hash sha256:0b\nc\n"
    )
    assert find_hashes(lines) == {"a-b": ("sha256:0a", "sha256:0b")}


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "--index-url x", "-r other", "-c x", "\x7f"])
def test_entries_that_are_no_single_requirement(text: str) -> None:
    with pytest.raises(RecipeError):
        check_requirement(text, "packages.pip[0]")


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
requirement = st.builds(
    lambda name, spec, marker: name + spec + marker,
    names,
    st.sampled_from(["", "==1.0", ">=1,<2", "[extra]>=1"]),
    st.sampled_from(["", "; python_version > '3.8'"]),
)


@given(st.lists(requirement), st.randoms(use_true_random=False))
def test_layout_does_not_change_what_is_read(wanted: list[str], random) -> None:  # type: ignore[no-untyped-def]
    plain = "\n".join(wanted)
    dressed = ""
    for one in wanted:
        dressed += random.choice(["", "\n", "# note\n", "   # note\n"])
        dressed += random.choice(["", "  "]) + one
        dressed += random.choice(["", "  # why", " \\\n  # joined", " \\\n"]) + "\n"
    assert _kinds(dressed) == _kinds(plain)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for line in parse_requirements(text):
        assert line.text.strip()
        local_path(line.text)
