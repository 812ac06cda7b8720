"""The table of advice: its answers for the cases that users have, and a site's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.core.advice import Answer, Facts, advise, parse_table
from limpet.core.errors import UsageError
from limpet.tools.advice_tables import read_table


def answers(facts: Facts, verdict: str = "recommended") -> list[Answer]:
    return [one for one in advise(facts, read_table()).answers if one.verdict == verdict]


RECIPE = Facts(kind="recipe", recipe="requirements.in", path="/p/requirements.in", packages=30)


@pytest.mark.parametrize(
    ("facts", "code", "command"),
    [
        (RECIPE, "own-image", "limpet build requirements.in -o environment.sif"),
        (Facts(kind="nothing"), "own-image", "limpet build --pip NAME -o environment.sif"),
        (
            Facts(kind="image", path="/a b.sif"),
            "existing-image",
            "limpet run '/a b.sif' python",
        ),
        (
            Facts(kind="environment", manager="conda", path="/e", files=100_000),
            "own-image",
            "limpet pack /e -o environment.sif",
        ),
        (
            Facts(kind="environment", manager="user", path="/e"),
            "own-image",
            "python3 -m pip freeze --user > requirements.in",
        ),
    ],
)
def test_the_first_answer_is_the_advice(facts: Facts, code: str, command: str) -> None:
    first = answers(facts)[0]
    assert first.code == code
    assert first.do[0] == command


def test_a_recipe_finds_its_way() -> None:
    def first(**seen: object) -> str:
        named = {name: getattr(RECIPE, name) for name in RECIPE.__struct_fields__}
        return answers(Facts(**{**named, **seen}))[0].code

    assert first(existing_image="/site/all.sif") == "existing-image"
    assert first(gpu=True, gpu_of="torch") == "vendor-image"
    assert first(vendor=True, base="docker://nvcr.io/nvidia/pytorch:24.10-py3") == "vendor-image"
    few = {"module_python": "cray-python", "packages": 3, "all_packages": True}
    assert first(**few) == "module-python"
    assert first(**{**few, "packages": 5}) == "own-image"
    assert first(**{**few, "all_packages": False}) == "own-image"
    assert first(host_commands="srun") == "wrapped"
    assert first(conda=True, gpu=True, gpu_of="pytorch") == "own-image"


def test_what_is_not_recommended_comes_with_the_reason() -> None:
    facts = Facts(
        kind="environment",
        manager="conda",
        files=123_456,
        operations=8_000,
        shared=True,
        filesystem="lustre",
    )
    (refused,) = answers(facts, "discouraged")
    assert "123,456 files on lustre" in refused.why
    assert "about 8,000 operations" in refused.why
    spack = Facts(kind="environment", manager="spack", files=9)
    assert {one.code for one in answers(spack, "discouraged")} == {
        "files-on-shared-disk",
        "own-spack",
    }


SITE = """
[[answers]]
code = "own-image"
title = "Ask us"
verdict = "recommended"
when = ["kind is recipe", "packages >= 10"]
why = "We have images for {packages} packages."

[[answers]]
code = "house"
title = "Our stack"
verdict = "possible"
why = "It is there."
"""


def test_a_site_puts_its_own_rows_first(tmp_path: Path) -> None:
    site = tmp_path / "site table.toml"
    site.write_text(SITE)
    found = advise(RECIPE, read_table(str(site))).answers
    assert [one.title for one in found if one.verdict == "recommended"] == ["Ask us"]
    assert found[0].why == "We have images for 30 packages."
    assert "house" in {one.code for one in found}
    assert "files-on-shared-disk" in {one.code for one in found}
    site.write_text(f"replace = true\n{SITE}")
    assert {one.code for one in read_table(str(site)).answers} == {"own-image", "house"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ('"packages >= 10"', 'there is no fact "package"'),
        ('"packages >= 10"', "is no condition"),
        ('"packages >= 10"', "is no number"),
        ('"recommended"', "verdict"),
        ("{packages}", "no fact 'pakages'"),
        ("[[answers]]", "no TOML"),
    ],
)
def test_a_table_with_a_mistake_says_where(tmp_path: Path, changed: str, said: str) -> None:
    wrong = {
        'there is no fact "package"': '"package >= 10"',
        "is no condition": '"packages at least 10"',
        "is no number": '"manager >= 10"',
        "verdict": '"maybe"',
        "no fact 'pakages'": "{pakages}",
        "no TOML": "[[answers",
    }[said]
    site = tmp_path / "site.toml"
    site.write_text(SITE.replace(changed, wrong, 1))
    with pytest.raises(UsageError) as error:
        read_table(str(site))
    assert said.replace('"', "'") in str(error.value)
    if said != "no TOML":
        assert str(site) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(str(tmp_path / "none.toml"))


def test_a_rule_can_only_ask_for_known_facts() -> None:
    rule = {"code": "a", "title": "a", "verdict": "possible", "why": "a", "when": ["not gpus"]}
    with pytest.raises(UsageError, match=r"no fact 'gpus'[^?]*\n?Did you mean gpu\?"):
        parse_table({"answers": [rule]}, "x")
