from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.core.secrets import find_passwords, find_secret_urls, scrub, scrub_text


@pytest.mark.parametrize(
    ("url", "scrubbed"),
    [
        ("https://u:p@h/simple", "https://h/simple"),
        ("https://token@h:8080/simple/", "https://h:8080/simple/"),
        ("https://u:p@ss@h/x", "https://h/x"),
        ("https://h/a@b", "https://h/a@b"),
        ("https://h/x.whl?token=abc&v=1", "https://h/x.whl?v=1"),
        ("https://h/x?X-Amz-Signature=ab&X-Amz-Credential=c", "https://h/x"),
        ("ssh://git@h/r.git", "ssh://git@h/r.git"),
        ("git+ssh://git:pw@h/r.git", "git+ssh://git@h/r.git"),
        ("git+https://tok@h/r@main", "git+https://h/r@main"),
        ("file:///a/b@c", "file:///a/b@c"),
    ],
)
def test_scrub(url: str, scrubbed: str) -> None:
    assert scrub(url) == scrubbed


def test_text() -> None:
    text = "`https://u:p@h/x?sig=abc` ssh://git@h Authorization: Basic dTpwdTpwdTpw"
    assert scrub_text(text) == "`https://***@h/x?sig=***` ssh://git@h Authorization: ***"
    assert scrub_text("hunter2!", ["hunter2"]) == "***!"


def test_urls_with_credentials_are_found() -> None:
    text = "--index-url https://u:p@h/simple\nx @ https://h/x.whl\ny @ http://t@h2/y.whl ; a\n"
    text += "z @ git+ssh://git@h/z\n"
    assert find_secret_urls(text) == ("https://u:p@h/simple", "http://t@h2/y.whl")


def test_passwords_as_written_and_as_meant() -> None:
    urls = ("https://u:p%40ss@h/x", "https://token@h/x", "https://h/x", "https://u:p@[bad/")
    assert find_passwords(urls) == ("p%40ss", "p@ss", "token", "p")


secret = st.from_regex(r"S3cr[A-Za-z0-9:@%!$&*+,=_.~-]{0,12}t5", fullmatch=True)


@given(secret, st.sampled_from(["https", "http", "git+https"]))
def test_no_user_part_survives(word: str, scheme: str) -> None:
    for url in (f"{scheme}://{word}@host/a", f"{scheme}://user:{word}@host/a"):
        assert "S3cr" not in scrub(url)
        assert "S3cr" not in scrub_text(f"could not get {url}: 401")
        assert scrub(url) == f"{scheme}://host/a"
