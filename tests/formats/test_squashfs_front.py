"""The packed blocks of an order as a file: read by either name, at no cost of room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

from limpet.formats.squashfs import Entry, Front, Source, Squashfs, compose
from limpet.formats.squashfs.front import Listing, Place
from tests.formats.trees import composed, image_of, looks, noise

BLOCK = 4096
FILES = {f"a/{i:03}": bytes([i]) * 700 + noise(300) for i in range(40)}
LARGE = noise(3 * BLOCK + 100)
ORDER = [*sorted(FILES, reverse=True)[::2], "large", "a/000", "link", "nowhere"]


def entries() -> list[Entry]:
    small = [Entry(path, "file", content=data) for path, data in FILES.items()]
    return [
        *small,
        Entry("large", "file", content=LARGE),
        Entry("link", "symlink", target="a/001"),
        Entry("a/folder", "symlink", target=".."),
    ]


def write(told: dict[str, Place], **options: object) -> bytes:
    def describe(places: Mapping[str, Place], listed: Callable[[str], Listing]) -> bytes:
        told.update(places)
        inside = listed("/a")
        assert inside["001"] == "file" and inside["folder"] == "dir"
        assert listed("/nowhere") == listed("/large") == {}
        return repr(sorted(places.items())).encode() * 20

    front = Front(path="front/blocks", index="front/index", describe=describe)
    plain = image_of(entries(), block_size=BLOCK)
    return composed([(plain, "")], order=ORDER, front=front, **options)


def test_small_files_are_read_by_two_names() -> None:
    told: dict[str, Place] = {}
    data = write(told)
    found = looks(data)
    blocks, index = found["front/blocks"][2], found["front/index"][2]
    assert isinstance(blocks, bytes) and isinstance(index, bytes)
    assert index == repr(sorted(told.items())).encode() * 20
    assert len(blocks) % BLOCK == 0
    assert set(told) == {*ORDER} - {"nowhere", "large"}  # a large one has blocks of its own
    for path, (start, size) in told.items():
        wanted = FILES[path if path != "link" else "a/001"]
        assert blocks[start : start + size] == wanted
        assert start // BLOCK == (start + size - 1) // BLOCK  # one request brings it whole
    assert {path: look[2] for path, look in found.items() if path in FILES} == FILES
    assert found["large"][2] == LARGE
    assert write({}) == data


def test_it_takes_no_room() -> None:
    plain = image_of(entries(), block_size=BLOCK)
    bare = composed([(plain, "")], order=ORDER)
    assert len(write({})) - len(bare) <= 2 * 4096  # the index, and padding


def test_nothing_to_say_is_no_file() -> None:
    front = Front(path="front/blocks", index="front/index", describe=lambda *_: b"")
    plain = image_of(entries(), block_size=BLOCK)
    found = looks(composed([(plain, "")], order=ORDER, front=front))
    assert "front/blocks" not in found and "front/index" not in found
    assert {path: look[2] for path, look in found.items() if path in FILES} == FILES


def test_such_an_image_is_composed_again() -> None:
    told: dict[str, Place] = {}
    before = looks(write(told))
    again = BytesIO()
    compose(again, [Source(Squashfs(BytesIO(write({}))))], order=["a/017", "front/blocks"])
    assert looks(again.getvalue()) == before
    gone = composed([(write({}), "")], remove=["front/blocks", "front/index"])
    assert {path: look[2] for path, look in looks(gone).items() if path in FILES} == FILES
