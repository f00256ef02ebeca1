"""The links file: every form it comes in, what is refused, and that no signature shows."""

from datetime import datetime, timezone

import pytest

from sa1b_tfds.download.links import (
    LINKS_PAGE,
    LinksError,
    SignedUrl,
    parse_links,
    read_links,
    redact,
    select,
)

NAME = "sa_000001.tar"
URL = "https://cdn.example/v/t6/opaque/{}?_nc=1&oh=fake-signature&oe=6600"


def text_of(*numbers: int) -> str:
    lines = [f"sa_{n:06d}.tar\t{URL.format(n)}" for n in numbers]
    return "\n".join(["file_name\tcdn_link", *lines, f"sa_images_ids.txt\t{URL.format('ids')}"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text, id="as Meta's"),
        pytest.param(lambda text: text.partition("\n")[2], id="no header"),
        pytest.param(lambda text: text.replace("\t", "   "), id="spaces"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(lambda text: text.replace("\n", "\n\n  \n") + "\n", id="blank lines"),
        pytest.param(lambda text: text + "\n" + text, id="the same twice"),
    ],
)
def test_every_form_gives_the_same_links(change):
    links = parse_links(change(text_of(20, 3)))

    assert sorted(links.tars) == ["sa_000003.tar", "sa_000020.tar"]
    assert list(links.others) == ["sa_images_ids.txt"]
    assert links.tars["sa_000020.tar"].url.reveal() == URL.format(20)
    assert links.tars["sa_000020.tar"].number == 20
    assert links.notes == ()


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "links.txt").write_text(text_of(1).partition("\n")[2], encoding="utf-8-sig")

    assert list(read_links(tmp_path / "links.txt").tars) == ["sa_000001.tar"]


@pytest.mark.parametrize("escaped", ["&amp;", "&AMP;", "&amp;amp;", "&#38;", "&#x26;"])
def test_a_link_saved_from_a_page_is_read_as_it_was(escaped):
    text = text_of(1)
    assert parse_links(text.replace("&", escaped)).tars == parse_links(text).tars


def test_of_two_links_for_a_name_the_later_wins_and_it_is_said():
    links = parse_links(text_of(1) + "\nsa_000001.tar\thttps://cdn.example/newer?sig=fake")

    assert links.tars["sa_000001.tar"].url.reveal() == "https://cdn.example/newer?sig=fake"
    assert links.notes == (
        "the links file, line 4: sa_000001.tar again, with another link: using it.",
    )


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ([], None),
        (["sa_000004.tar.gz", "sa_000005.tgz"], None),
        (["sa_co_gold.tar"], "sa_co_gold.tar (another dataset)"),
        (["sa_7.tar", "sa_co_gold.tar"], "sa_7.tar, sa_co_gold.tar (another dataset)"),
        ([f"{n}.pdf" for n in "abcde"], "a.pdf, b.pdf, c.pdf and 2 more"),
    ],
)
def test_files_that_are_not_sa1bs_tars_are_kept_apart(names, note):
    others = [f"{name}\t{URL.format(name)}" for name in names]
    links = parse_links("\n".join([text_of(1), *others]))

    tars = {name for name in names if name.startswith("sa_00000")}
    assert set(links.tars) == {link.name for link in select(links).links} == {NAME, *tars}
    assert set(links.others) == {"sa_images_ids.txt", *names} - tars
    said = f"lists more than SA-1B's tars: {note}. Such a file is fetched only if you name it"
    assert links.notes == (() if note is None else (f"the links file {said}: --names {names[0]}",))
    assert [link.name for link in select(links, names=names[:1]).links] == names[:1]


@pytest.mark.parametrize(
    ("query", "expires"),
    [
        ("?_nc=1&oh=fake-signature&oe=69B7B1E8", datetime(2026, 3, 16, 7, 31, 52)),
        ("?oe=69b7b1e8&_nc_sid=1", datetime(2026, 3, 16, 7, 31, 52)),
        ("?oe=FFFFFFFF", datetime(2106, 2, 7, 6, 28, 15)),
        ("?oe=5E0BE100", datetime(2020, 1, 1)),
        ("?oe=5E0BE0FF", None),
        ("", None),
        ("?oe=", None),
        ("?oe=tomorrow", None),
        ("?oe=6600", None),
        ("?oe=169B7B1E8", None),
        ("?oe=-9B7B1E8", None),
        ("?oe=" + "F" * 5000, None),
        ("?shoe=69B7B1E8&oe%3D69B7B1E8", None),
        ("#oe=69B7B1E8", None),
    ],
)
def test_a_link_says_when_it_expires(query, expires):
    url = SignedUrl(f"https://cdn.example/oe=69B7B1E8/a.tar{query}")

    assert url.expires == (expires and expires.replace(tzinfo=timezone.utc))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sa_000002.tar", r"line 4: expected a file name and a link, found 1 field"),
        ("sa_000002.tar https://cdn.example/a b", r"line 4: .* found 3 field"),
        ("sa_000002.tar ftp://cdn.example/a", r"line 4: what follows sa_000002.tar is not an http"),
        ("sa_000002.tar https:///a?sig=fake-signature", r"line 4: what follows sa_000002.tar"),
        ("sa_000002.tar https://cdn.example:port/a", r"line 4: what follows sa_000002.tar"),
        ("../sa_000002.tar https://cdn.example/a", r"line 4: the file name is not a plain name"),
        ("/etc/sa_000002.tar https://cdn.example/a", r"line 4: the file name is not a plain name"),
        (".sa1b.lock https://cdn.example/a", r"line 4: the file name is not a plain name"),
        ("https://cdn.example/a sa_000002.tar", r"line 4: the file name is not a plain name"),
        ("sa_000002.tar https://cdn.example/\u00e9", r"line 4: what follows sa_000002.tar"),
    ],
)
def test_a_line_that_cannot_be_read_is_an_error_with_its_number(line, message):
    with pytest.raises(LinksError, match=message) as error:
        parse_links(text_of(1) + "\n" + line)
    assert "fake-signature" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n\n", "file_name\tcdn_link\n"])
def test_a_file_without_links_is_an_error(text):
    with pytest.raises(LinksError, match=r"holds no link. Save it again from https"):
        parse_links(text)


def test_no_links_file_says_where_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="Request one at https"):
        read_links(tmp_path / "links.txt")


@pytest.mark.parametrize(
    ("options", "numbers", "missing"),
    [
        ({}, [0, 3, 20, 999], []),
        ({"start": 3}, [3, 20, 999], []),
        ({"end": 4}, [0, 3], ["sa_000001.tar", "sa_000002.tar"]),
        ({"start": 3, "end": 5}, [3], ["sa_000004.tar"]),
        ({"start": 20, "end": 21}, [20], []),
        ({"names": ["sa_000020.tar", "sa_000021.tar"]}, [20], ["sa_000021.tar"]),
        ({"start": 21}, [999], []),
        ({"end": 1}, [0], []),
        ({"names": ["sa_000020.tar", "sa_000003.tar"]}, [3, 20], []),
        ({"names": []}, [], []),
    ],
)
def test_selection(options, numbers, missing):
    own = f"\nsa_own.tar\t{URL.format('own')}"  # has no number: in no range
    selection = select(parse_links(text_of(20, 999, 0, 3) + own), **options)

    assert [link.number for link in selection.links] == numbers
    assert list(selection.missing) == missing


def test_a_range_without_an_end_lacks_nothing():
    assert select(parse_links(text_of(3, 20)), start=0).missing == ()


def test_the_ids_come_only_when_asked_for():
    links = parse_links(text_of(0))

    assert [link.name for link in select(links).links] == ["sa_000000.tar"]
    assert [link.name for link in select(links, with_ids=True).links][-1] == "sa_images_ids.txt"
    named = select(links, names=["sa_images_ids.txt"], with_ids=True)
    assert [link.name for link in named.links] == ["sa_images_ids.txt"]
    without = parse_links(text_of(0).rpartition("\n")[0])
    assert select(without, with_ids=True).missing == ("sa_images_ids.txt",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 5, "end": 5}, "start=5, end=5 holds no tar"),
        ({"start": -1}, "start=-1, end=None holds no tar"),
        ({"start": 1, "names": ["a"]}, "not by both"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        select(parse_links(text_of(0)), **options)


def test_a_link_shows_only_its_host():
    url = SignedUrl("https://user:password@cdn.example:8443/v/opaque/a.tar?oh=fake-signature")

    for shown in (repr(url), str(url), f"{url}", repr([url])):
        assert "cdn.example:8443" in shown
        assert not any(word in shown for word in ("password", "opaque", "fake-signature"))


@pytest.mark.parametrize(
    "text",
    [
        "Max retries exceeded with url: /v/a.tar?oh=fake-signature (Caused by ...)",
        "GET https://cdn.example/secret-path/a.tar?oh=fake-signature HTTP/1.1",
        "'https://u:password@cdn.example/secret-path'",
        "<a href='HTTPS://cdn.example/x?oh=fake-signature'>",
    ],
)
def test_redact(text):
    shown = redact(text)

    assert not any(word in shown for word in ("fake-signature", "secret-path", "password"))
    page = f"Request one at {LINKS_PAGE} and save it there."
    for text in ("nothing secret, http or so", page):
        assert redact(text) == text
    assert redact(LINKS_PAGE + "?token=1") == "https://ai.meta.com/..."
