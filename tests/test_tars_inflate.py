"""gzip in all its shapes, and damaged in all ways: what is accepted is right to the last byte."""

import gzip
import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa1b_tfds.tars import inflate
from tests.building import pack

RNG = np.random.default_rng(0)
# As a tar has it: text that deflates well, and noise that does not.
DATA = b'{"segmentation": [1, 2, 3]}' * 200 + RNG.bytes(9000) + bytes(3000)
PACKED = pack(DATA)

try:
    from isal import isal_zlib
except ImportError:
    INFLATERS = {"zlib": zlib}
else:
    INFLATERS = {"zlib": zlib, "isal": isal_zlib}


@pytest.fixture(params=INFLATERS)
def inflater(request, monkeypatch):
    monkeypatch.setattr(inflate, "_zlib", INFLATERS[request.param])


def inflated(data, size=None, ahead=0):
    """The bytes inside of `data`, of which some were read already."""
    file = io.BytesIO(data[ahead:])
    return b"".join(inflate.Inflated(file, size, data[:ahead]).blocks())


def of_each(data):
    """What each inflater makes of `data`: bytes, or the text of its error without zlib's words."""
    found = []
    for module in INFLATERS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inflate, "_zlib", module)
            try:
                found.append(inflated(data))
            except inflate.Damaged as e:
                found.append(str(e).partition(" (")[0])
    return found


def member(data, flags=0, extra=b"", header=b""):
    """A gzip member with these flags and optional fields."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\x01\x02\x03\x04\x00\x07" + extra + header
    if flags & 2:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) % 2**32)


EXTRA = struct.pack("<H", 6) + b"AB\x02\x00xy"
LONG = struct.pack("<H", 65535) + bytes(65535)
NAME, COMMENT = b"sa_000000.tar\0", b"a comment\0"


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("ahead", [0, 2, 12, 5000])
@pytest.mark.parametrize(
    "data",
    [
        PACKED,
        pack(DATA, 0),
        pack(DATA, 9),
        member(DATA, 0),
        member(DATA, 1),  # "text", which says nothing
        member(DATA, 2),
        member(DATA, 4, EXTRA),
        member(DATA, 4, LONG),
        member(DATA, 4, struct.pack("<H", 0)),
        member(DATA, 8, NAME),
        member(DATA, 8, b"n" * 100_000 + b"\0"),
        member(DATA, 16, COMMENT),
        member(DATA, 31, EXTRA + NAME + COMMENT),
        pack(DATA[:7]) + pack(DATA[7:]),
        member(DATA[:9000], 8, NAME) + pack(DATA[9000:], 1),
        pack(b"") + PACKED,
        PACKED + pack(b"") * 3,
        b"".join(pack(DATA[i : i + 100]) for i in range(0, len(DATA), 100)),
        PACKED + b"\0",
        PACKED + bytes(100_000),
        PACKED + bytes(700) + pack(b""),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_every_shape_of_gzip_is_inflated(data, ahead):
    assert inflated(data, ahead=ahead) == DATA == gzip.decompress(data)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, len(DATA)), max_size=6).map(sorted),
    st.lists(st.sampled_from([0, 1, 6, 9]), min_size=7, max_size=7),
    st.integers(1, 4000),
    st.integers(100, 40_000),
)
def test_members_split_anywhere_give_the_same(splits, levels, read, at_once):
    stops = [*splits, len(DATA)]
    starts = [0, *splits]
    parts = zip(starts, stops, levels, strict=False)
    packed = b"".join(pack(DATA[start:stop], level) for start, stop, level in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_READ", read)
        patch.setattr(inflate, "_MOST_AT_ONCE", at_once)
        assert of_each(packed) == [DATA] * len(INFLATERS)


@pytest.mark.usefixtures("inflater")
def test_where_the_last_member_ends_is_known():
    reader = inflate.Inflated(io.BytesIO(PACKED + PACKED + bytes(99)))
    assert b"".join(reader.blocks()) == DATA + DATA
    assert (reader.end, reader.consumed) == (2 * len(PACKED), 2 * len(PACKED) + 99)


SIZE = f"{len(PACKED):,}"
WRONG_CRC = PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:]
WRONG_LENGTH = PACKED[:-4] + bytes([PACKED[-4] ^ 1]) + PACKED[-3:]
BODY = f"from byte 10 to {SIZE}"


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it ends at byte 0, in the middle of a header"),
        (PACKED[:1], "it ends at byte 1, in the middle of a header"),
        (PACKED[:9], "it ends at byte 9, in the middle of a header"),
        (PACKED[:10], "it ends at byte 10, before its compressed data does"),
        (PACKED[:5000], "it ends at byte 5,000, before its compressed data does"),
        (PACKED[:-8], "it ends at byte .*, in the middle of the checksum"),
        (PACKED[:-1], "it ends at byte .*, in the middle of the checksum"),
        (member(DATA, 4, LONG)[:60_000], "it ends at byte 60,000, in the middle of a header"),
        (member(DATA, 8, NAME)[:15], "it ends at byte 15, in the middle of a header"),
        (b"\x1f\x8b" + bytes(1000), "there is no gzip header at byte 0"),
        (PACKED[:2] + b"\x07" + PACKED[3:], "there is no gzip header at byte 0"),
        (PACKED[:3] + b"\x20" + PACKED[4:], "there is no gzip header at byte 0"),
        (WRONG_CRC, f"the checksum of what was compressed {BODY} is wrong: a byte in it"),
        (WRONG_LENGTH, f"the length of what was compressed {BODY} is wrong"),
        (PACKED + b"x", f"the compressed data ends at byte {SIZE}, but more follows it"),
        (PACKED + bytes(9) + b"\x1f", f"the compressed data ends at byte {SIZE}, but more"),
        (PACKED + bytes(70_000) + b"x", f"the compressed data ends at byte {SIZE}, but more"),
        (PACKED + PACKED[:9], f"it ends at byte {len(PACKED) + 9:,}, in the middle of a header"),
        (PACKED + PACKED[:99], f"it ends at byte {len(PACKED) + 99:,}, before its compressed"),
        (PACKED + WRONG_CRC, f"compressed from byte {len(PACKED) + 10:,} to .* is wrong"),
        (PACKED + b"\x1f\x8b" + bytes(99), f"there is no gzip header at byte {SIZE}"),
        (PACKED[:10] + b"\xff" * 99, "cannot be inflated beyond byte 109 of 109 "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_damage_names_its_byte(data, reason):
    with pytest.raises(inflate.Damaged, match=reason):
        inflated(data, size=len(data))


@given(st.integers(0, len(PACKED) - 1), st.booleans())
def test_a_file_cut_anywhere_is_never_taken_for_whole(cut, has_another_before):
    before = PACKED if has_another_before else b""
    said = f"it ends at byte {len(before) + cut:,}, (in the middle of|before its compressed data)"
    if before and cut < 2:
        said = f"the compressed data ends at byte {SIZE}, but more follows it"
    for found in of_each(before + PACKED[:cut]):
        assert (before and cut == 0) or re.match(said, found)


# The time, how hard it was compressed, and the system that did it; and one of the flags.
MEANS_NOTHING = {*range(4, 10)}


@settings(max_examples=300)
@given(st.integers(0, len(PACKED) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_found_or_means_nothing(byte, bit):
    broken = bytearray(PACKED)
    broken[byte] ^= 1 << bit
    for found in of_each(bytes(broken)):
        if isinstance(found, bytes):
            assert byte in MEANS_NOTHING or (byte, bit) == (3, 0)
            assert found == DATA
        else:
            assert "byte" in found


@pytest.mark.parametrize("position", range(10))
def test_each_bit_of_a_header_is_found_or_means_nothing(position):
    for bit in range(8):
        broken = bytearray(PACKED)
        broken[position] ^= 1 << bit
        means_nothing = position in MEANS_NOTHING or (position, bit) == (3, 0)
        for found in of_each(bytes(broken)):
            assert (found == DATA) == means_nothing


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize(
    ("data", "reason", "least"),
    [
        (WRONG_CRC, "the checksum of", len(DATA)),
        (PACKED + b"x", "more follows it", len(DATA)),
        (PACKED[:9000], "it ends at byte 9,000", 12_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_before_the_damage_comes_out_first(monkeypatch, data, reason, least):
    """All of it, but for what one read of the file holds."""
    monkeypatch.setattr(inflate, "_READ", 1000)
    got, error = as_far_as_it_goes(data)
    assert reason in str(error)
    assert DATA.startswith(got)
    assert len(got) >= least


def as_far_as_it_goes(data):
    got = bytearray()
    try:
        for block in inflate.Inflated(io.BytesIO(data)).blocks():
            got += block
    except inflate.Damaged as e:
        return bytes(got), e
    return bytes(got), None


@pytest.mark.usefixtures("inflater")
def test_a_bomb_is_stopped_and_takes_no_memory(monkeypatch):
    monkeypatch.setattr(inflate, "_MAX_RATIO_FROM", 32 * 2**20)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(64)) + compressor.flush()
    assert len(bomb) < 70_000
    blocks = inflate.Inflated(io.BytesIO(bomb)).blocks()
    came: list[int] = []
    tracemalloc.start()
    with pytest.raises(inflate.Damaged, match="inflates to over 20 times its size, as no tar"):
        came.extend(map(len, blocks))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 16 * 2**20 < sum(came) <= 32 * 2**20
    assert peak < 4 * inflate._MOST_AT_ONCE


@pytest.mark.usefixtures("inflater")
def test_a_small_file_of_zeros_is_no_bomb():
    assert inflated(pack(bytes(2**20), 9)) == bytes(2**20)
