"""Images in an order: what is opened together lies together, and nothing else changes."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.formats.squashfs import Entry, Source, Squashfs, compose
from tests.formats.trees import BLOCK, Tree, composed, entries_of, image_of, looks, noise, trees


def small(count: int, seed: int = 0) -> list[Entry]:
    return [Entry(f"d{i % 7}/f{i:03}", "file", content=noise(300, seed + i)) for i in range(count)]


@settings(max_examples=30, deadline=None)
@given(trees, st.randoms())
def test_any_order_keeps_all_contents(tree: Tree, random: object) -> None:
    data = image_of(entries_of(tree), threads=1)
    names = list(looks(data))
    random.shuffle(names)  # type: ignore[attr-defined]
    assert looks(composed([(data, "")], order=names)) == looks(data)


def test_small_files_of_the_order_share_blocks() -> None:
    data = image_of(small(200))
    order = [f"d{i % 7}/f{i:03}" for i in range(0, 200, 10)]
    out = composed([(data, "")], order=order)
    assert looks(out) == looks(data)
    image = Squashfs(BytesIO(out))
    nodes = [image.find(path) for path in order]
    blocks = {node.fragment for node in nodes if node}
    assert len(blocks) == -(-20 * 300 // BLOCK)  # as few as can hold them
    places = [(node.fragment, node.offset) for node in nodes if node]
    assert places == sorted(places)
    assert image.fragment_at(0)[0] == image.data_start


def test_files_that_share_their_bytes_still_do() -> None:
    twins = [Entry(name, "file", content=noise(500, 1)) for name in ("a", "b", "c")]
    data = image_of([*small(20), *twins])
    image = Squashfs(BytesIO(composed([(data, "")], order=["b"])))
    places = {(n.fragment, n.offset) for name in "abc" if (n := image.find(name))}
    assert len(places) == 1
    assert image.read("c") == noise(500, 1)


def test_tells_how_much_of_it_is_read_first() -> None:
    large = [Entry(f"big{i}", "file", content=noise(BLOCK * 4, 70 + i)) for i in range(3)]
    source = Squashfs(BytesIO(image_of([*small(50), *large])))
    out = BytesIO()
    stats = compose(out, [Source(source)], order=["big2", "d3/f003"])
    image = Squashfs(out)
    big = image.find("big2")
    assert big
    assert stats.hot == ((0, big.start + 4 * BLOCK),)
    assert stats.tables_start == image.data_end
    assert compose(BytesIO(), [Source(source)]).hot == ()
    assert compose(BytesIO(), [Source(source)], order=["nothing/there"]).hot == ()


def test_directories_of_the_order_have_neighbouring_inodes() -> None:
    many = [Entry(f"p{i:02}/m{j:02}", "file", content=b"x") for i in range(60) for j in range(60)]
    order = ["p07/m01", "p31/m05", "p55/m09"]
    data = image_of(many)
    out = composed([(data, "")], order=order)
    assert looks(out) == looks(data)

    def spread(image: Squashfs) -> int:
        listings = [node.listing for name in ("p07", "p31", "p55") if (node := image.find(name))]
        return max(block for block, _ in listings) - min(block for block, _ in listings)

    assert spread(Squashfs(BytesIO(out))) < spread(Squashfs(BytesIO(data)))
