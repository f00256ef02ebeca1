"""`RemoteFile`: what is behind a link is read once, in order, through breaks; and what is not."""

import hashlib
import logging
import random

import psutil
import pytest

from sa1b_tfds.download.links import Link, SignedUrl
from sa1b_tfds.download.transfer import stream
from sa1b_tfds.download.transfer.answers import Refused
from sa1b_tfds.download.transfer.settings import TransferConfig
from sa1b_tfds.download.transfer.stream import RemoteFile
from tests.downloading import wait_for
from tests.fault_server import Fault, FaultServer

NAME = "sa_000000.tar"
DATA = random.Random(0).randbytes(50_000)
WEAK = {"ETag": None}
BUSY = Fault(status=503)


@pytest.fixture
def server():
    with FaultServer({NAME: DATA}) as running:
        yield running


def opened(server, faults=(), **settings):
    server.faults[NAME] = list(faults)
    settings = {"retries": 2, "timeout": 10.0, "backoff": 0.0, **settings}
    link = Link(name=NAME, url=SignedUrl(server.url(NAME)))
    return RemoteFile(link, TransferConfig(**settings))


def starts(server):
    return [request.start for request in server.of(NAME)]


def is_connected(server):
    connections = psutil.Process().net_connections("tcp")
    return any(
        c.raddr and c.raddr.port == server.port and c.status == "ESTABLISHED" for c in connections
    )


@pytest.mark.parametrize(
    ("faults", "size"),
    [
        ([], 50_000),
        ([BUSY, BUSY], 50_000),
        ([Fault(chunked=True)], None),
        ([Fault(truncate_to=7)], 7),
    ],
)
def test_the_size_is_what_the_server_says_and_costs_one_request(server, faults, size):
    with opened(server, faults) as file:
        assert file.size() == size
        assert file.size() == size
        assert file.read(7) == DATA[:7]
    assert len(server.of(NAME)) == len([f for f in faults if f.status]) + 1


@pytest.mark.parametrize("chunked", [False, True])
def test_reads_and_seeks_forward_as_a_file_does(server, monkeypatch, chunked):
    monkeypatch.setattr(stream, "READ_BYTES", 1000)
    with opened(server, [Fault(chunked=chunked)]) as file:
        assert file.read(0) == b""
        assert file.read(2500) == DATA[:2500]
        assert file.seek(2500) == 2500
        assert file.seek(10_000) == 10_000
        assert file.read(1) == DATA[10_000:10_001]
        with pytest.raises(ValueError, match="is read forward only"):
            file.seek(10_000)
        assert file.seek(49_990) == 49_990
        assert file.read(1000) == DATA[49_990:]
        assert file.read(1) == b""
        assert file.seek(99_999) == 50_000
    assert starts(server) == [0]


@pytest.mark.parametrize("headers", [{}, WEAK])
@pytest.mark.parametrize("first", [0, 1, 999, 1000, 1001, 49_999])
def test_a_break_at_any_byte_goes_on_after_it(server, monkeypatch, headers, first):
    """Also where what was handed out before has to be read and compared."""
    monkeypatch.setattr(stream, "READ_BYTES", 1000)
    faults = [Fault(send=first, add=headers), Fault(add=headers)]
    with opened(server, faults, retries=1) as file:
        assert file.read(60_000) == DATA
    assert starts(server) == [0, 0 if headers else first]


def test_a_break_while_it_is_compared_is_taken_up_again(server):
    faults = [Fault(send=20_000, add=WEAK), Fault(send=10_000, add=WEAK), Fault(add=WEAK)]
    with opened(server, faults) as file:
        assert file.read(60_000) == DATA
    assert starts(server) == [0, 0, 0]


@pytest.mark.parametrize("at", [0, 19_999])
def test_one_other_byte_among_those_handed_out_is_found(server, at):
    changed = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    exchange = Fault(add=WEAK, before=lambda: server.files.update({NAME: changed}))
    with (
        opened(server, [Fault(send=20_000, add=WEAK), exchange]) as file,
        pytest.raises(Refused, match="the file has changed on the server while it was read"),
    ):
        file.read(60_000)


@pytest.mark.parametrize(
    ("length", "reason"),
    [(10_000, "has become shorter"), (20_000, "has become shorter"), (30_000, "has changed")],
)
def test_a_file_that_shrinks_on_the_server_is_refused(server, monkeypatch, length, reason):
    monkeypatch.setattr(server, "etag", lambda name: '"the same"')
    shrink = Fault(before=lambda: server.files.update({NAME: DATA[:length]}))
    with opened(server, [Fault(send=20_000), shrink]) as file:
        with pytest.raises(Refused, match=f"the file {reason} .*on the server while it was read"):
            file.read(60_000)
        assert len(server.of(NAME)) == 2


def test_a_file_of_unknown_size_that_shrinks_is_given_up(server):
    again = [Fault(add=WEAK, chunked=True, truncate_to=10_000) for _ in range(3)]
    with (
        opened(server, [Fault(send=20_000, add=WEAK, chunked=True), *again]) as file,
        pytest.raises(Refused, match="ended before byte 20,000; gave up after 2 retries"),
    ):
        file.read(60_000)


def test_another_etag_of_a_file_as_long_is_refused(server):
    other = Fault(add={"ETag": '"another"'})
    with (
        opened(server, [Fault(send=20_000), other]) as file,
        pytest.raises(Refused, match="the file has changed on the server"),
    ):
        file.read(60_000)


def test_retries_are_those_in_a_row_without_progress(server):
    """Each of ten connections brings 2 kB before it breaks; the next two bring nothing."""
    breaks = [Fault(send=2000) for _ in range(10)]
    with opened(server, breaks) as file:
        assert file.read(60_000) == DATA
    assert starts(server) == list(range(0, 20_001, 2000))
    server.requests.clear()
    with (
        opened(server, [*breaks, BUSY, BUSY]) as file,
        pytest.raises(Refused, match=r"HTTP 503.*; gave up after 2 retries"),
    ):
        file.read(60_000)
    assert starts(server) == [*range(0, 20_001, 2000), 20_000]


@pytest.mark.parametrize(("brought", "is_progress"), [(999, False), (1000, True)])
def test_a_kilobyte_is_progress(server, brought, is_progress):
    with opened(server, [BUSY, Fault(send=brought), BUSY]) as file:
        if is_progress:
            assert file.read(60_000) == DATA
        else:
            with pytest.raises(Refused, match="gave up after 2 retries"):
                file.read(60_000)


def test_it_waits_as_long_as_the_server_says_or_else_longer_each_time(server, monkeypatch, caplog):
    waited = []
    monkeypatch.setattr(stream.time, "sleep", waited.append)
    faults = [BUSY, Fault(status=503, headers={"Retry-After": "7"}), BUSY]
    with caplog.at_level(logging.WARNING), opened(server, faults, retries=3, backoff=8.0) as file:
        assert file.read(60_000) == DATA
    assert 4 <= waited[0] <= 8
    assert waited[1] == 7
    assert 16 <= waited[2] <= 32
    assert [m.partition(":")[0] for m in caplog.messages if "again in" in m] == [NAME] * 3


def test_what_is_as_long_as_the_longest_file_is_read_and_no_byte_more(server, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 1000)
    monkeypatch.setattr(stream, "MOST_BYTES", 50_000)
    with opened(server, [Fault(chunked=True)]) as file:
        assert file.read(60_000) == DATA
    monkeypatch.setattr(stream, "MOST_BYTES", 49_999)
    with (
        opened(server, [Fault(chunked=True)]) as file,
        pytest.raises(Refused, match=r"does not say its size, and sent 50\.0 kB"),
    ):
        file.read(60_000)
    with opened(server) as file:  # a size that is said may be larger
        assert hashlib.sha256(file.read(60_000)).digest() == hashlib.sha256(DATA).digest()


def test_a_file_that_is_left_early_leaves_no_connection(server):
    server.files[NAME] = bytes(20_000_000)
    with opened(server) as file:
        assert file.read(10) == bytes(10)
        assert is_connected(server)
    wait_for(lambda: not is_connected(server))
    assert server.of(NAME)[0].sent < 20_000_000


def test_a_file_that_is_read_whole_leaves_no_connection(server):
    with opened(server) as file:
        assert file.read(60_000) == DATA
        assert is_connected(server)  # the server keeps it open
    wait_for(lambda: not is_connected(server))


def test_an_answer_nobody_asked_for_is_dropped_before_the_next(server):
    unasked = Fault(status=206, body=bytes(99), headers={"Content-Range": "bytes 0-98/99"})
    with opened(server, [unasked]) as file:
        assert file.read(60_000) == DATA
    assert starts(server) == [0, 0]
