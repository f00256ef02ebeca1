import concurrent.futures
import logging
import os
import shutil
import signal
import time

import numpy as np
import psutil
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.core import processes
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.download import tar_stream
from sa1b_tfds.download.links import Link, SignedUrl
from sa1b_tfds.download.transfer.settings import TransferConfig
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.training import tar_records
from tests import building
from tests.fault_server import EXPIRED_BODY, SIGNATURE, Fault, FaultServer

pytestmark = pytest.mark.usefixtures("threads")

SKIP = tfds.decode.SkipDecoding()
UNDECODED = {"image": SKIP, "masks": SKIP}
ONLY_IDS = tfds.decode.PartialDecoding({"image_id": True})


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    for name in ("sa_000000.tar", "sa_000001.tar"):
        shutil.copy(f"dummy_data/{name}", folder)
    return folder


@pytest.fixture(scope="module")
def prepared(prepared_dummy):
    return tfds.builder("segment_anything", data_dir=prepared_dummy)


def by_id(dataset):
    return {int(element["image_id"]): element for element in tfds.as_numpy(dataset)}


def ids_of(dataset):
    return [int(element["image_id"]) for element in dataset]


def assert_same_elements(left, right):
    assert left.element_spec == right.element_spec
    left, right = by_id(left), by_id(right)
    assert left.keys() == right.keys()
    for image_id, element in left.items():
        tf.nest.assert_same_structure(element, right[image_id])
        pairs = zip(tf.nest.flatten(element), tf.nest.flatten(right[image_id]), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)
            assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize(
    "decoders",
    [
        None,
        {"masks": sa1b_tfds.decode_masks_to(size=(32, 48), max_masks=5)},
        UNDECODED,
        tfds.decode.PartialDecoding({"image_id": True, "annotations": {"area"}}),
    ],
)
def test_the_elements_are_those_of_tfds_load(tars, prepared, decoders):
    expected = prepared.as_dataset(split="train", decoders=decoders)
    found = sa1b_tfds.read_tars(tars, decoders=decoders)
    assert_same_elements(found, expected)
    assert len(by_id(found)) == 8


def test_extracted_files_and_single_tars(tars, prepared, tmp_path):
    expected = prepared.as_dataset(split="train", decoders=UNDECODED)
    for pair in TarArchive(tars / "sa_000000.tar").pairs(Problems()):
        (tmp_path / pair.jpeg_name).write_bytes(pair.jpeg)
        (tmp_path / pair.json_name).write_bytes(pair.json)
    sources = [tmp_path, str(tars / "sa_000001.tar")]
    assert_same_elements(sa1b_tfds.read_tars(sources, decoders=UNDECODED), expected)


@pytest.fixture(scope="module")
def many_plain(tmp_path_factory):
    """Five tars of 5 to 9 images: tar t has the ids 100 t, 100 t + 1, ..."""
    folder = tmp_path_factory.mktemp("many")
    for tar in range(5):
        files = {}
        for image_id in range(100 * tar, 100 * tar + 5 + tar):
            files |= make.files_of(image_id, 8, 8, 1)
        make.write_tar(folder / f"sa_{tar:06d}.tar", files, seed=tar)
    return folder


@pytest.fixture(scope="module", params=building.FORMS)
def many(many_plain, request):
    return building.FORMS[request.param](many_plain)


class Inline:
    """What `Processes` does, here and at once: the order is the same, a process start is not."""

    def __init__(self, number):
        pass

    def submit(self, function, *args):
        future = concurrent.futures.Future()
        future.set_result(function(*args))
        return future

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


def order_of(many, workers=1, passes=1, **options):
    """The image ids of some passes."""
    dataset = sa1b_tfds.read_tars(many, decoders=ONLY_IDS, num_workers=workers, **options)
    orders = [ids_of(dataset) for _ in range(passes)]
    return orders[0] if passes == 1 else orders


@pytest.mark.usefixtures("processes")
def test_the_order_does_not_depend_on_processes_or_form(many, many_plain, monkeypatch):
    everything = order_of(many, 3, interleave=5)
    monkeypatch.setattr(tar_records, "Processes", Inline)
    assert order_of(many, interleave=5) == everything
    assert order_of(many_plain, interleave=5) == everything
    assert len(set(everything)) == 35
    assert {image_id // 100 for image_id in everything[:20]} == {0, 1, 2, 3, 4}
    one_by_one = order_of(many, interleave=1)
    assert [i // 100 for i in one_by_one] == sorted(i // 100 for i in one_by_one)
    two = [i // 100 for i in order_of(many, interleave=2)]
    assert two[:8] == [0] * 4 + [1] * 4
    assert two.index(4) > max(i for i, tar in enumerate(two) if tar == 0)
    assert order_of(many) == order_of(many_plain) == order_of(many, interleave=2)


def test_shuffled_orders(many, monkeypatch):
    monkeypatch.setattr(tar_records, "Processes", Inline)
    first, second = order_of(many, passes=2, shuffle=True, seed=5)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(order_of(many))
    assert order_of(many, passes=2, shuffle=True, seed=5) == [first, second]
    assert order_of(many, 2, passes=2, shuffle=True, seed=5) == [first, second]
    assert order_of(many, shuffle=True, seed=6) != first
    assert order_of(many, shuffle=True) != order_of(many, shuffle=True)
    firsts = {order_of(many, shuffle=True, seed=s, interleave=1)[0] // 100 for s in range(4)}
    assert len(firsts) > 1  # tars are shuffled as well


MD5_TABLE = "sa1b_tfds/download/sa1b_md5.txt"  # a text, as a file of links is


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"paths_or_urls": []}, ValueError, "at least one tar"),
        ({"paths_or_urls": "no/such.tar"}, FileNotFoundError, r"no/such\.tar is not there"),
        ({"paths_or_urls": "docs"}, FileNotFoundError, "docs holds neither"),
        ({"paths_or_urls": MD5_TABLE}, ValueError, r"not a tar. .*read_links\('sa1b_tfds"),
        ({"interleave": 0}, ValueError, "interleave must be a positive integer, got 0"),
        ({"num_workers": 0}, ValueError, "num_workers must be a positive integer, got 0"),
        ({"seed": 3}, ValueError, "seed=3 has no effect without shuffle=True"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip'"),
        ({"paths_or_urls": "http:///sa_000000.tar"}, ValueError, "not an http or https link"),
    ],
)
def test_options(tars, arguments, error, text):
    with pytest.raises(error, match=text):
        sa1b_tfds.read_tars(**{"paths_or_urls": tars, **arguments})


@pytest.fixture(scope="module", params=["plain", "gzip"])
def bad(tmp_path_factory, request):
    """A tar with a broken JSON, a JPEG without its JSON, and a good pair."""
    folder = tmp_path_factory.mktemp("bad")
    broken = {"./sa_1.json": b"{", "./sa_9.jpg": make.files_of(9)["./sa_9.jpg"]}
    make.write_tar(folder / "sa_000000.tar", make.files_of(1) | make.files_of(2) | broken)
    return building.FORMS[request.param](folder)


def test_bad_input_stops_with_its_name(bad):
    with pytest.raises(tf.errors.OpError, match=r"sa_000000\.tar: \./sa_9\.jpg: its .json is miss"):
        ids_of(sa1b_tfds.read_tars(bad, decoders=ONLY_IDS))


def test_bad_input_is_skipped_logged_and_counted(bad, caplog):
    with caplog.at_level(logging.INFO):
        assert ids_of(sa1b_tfds.read_tars(bad, decoders=ONLY_IDS, on_error="skip")) == [2]
    lines = [record.getMessage() for record in caplog.records]
    assert "1 image; 2 skipped" in lines[-1]
    assert any("sa_000000.tar: ./sa_9.jpg: its .json is missing" in line for line in lines)
    assert any("sa_000000.tar: ./sa_1.json: it is not JSON" in line for line in lines)


@pytest.fixture
def children():
    """The processes that the test has started and that live, as a function; others may be there."""
    before = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in before]


def all_end(children):
    deadline = time.monotonic() + 60
    while children() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not children()


@pytest.mark.usefixtures("processes")
def test_no_process_outlives_a_pass(many, children):
    dataset = sa1b_tfds.read_tars(many, decoders=ONLY_IDS, num_workers=2)
    assert len(list(dataset)) == 35
    assert all_end(children)
    iterator = iter(dataset.take(30))
    next(iterator)
    del iterator
    assert all_end(children)


def test_a_damaged_tar_gives_what_was_before_and_is_named(many_plain, tmp_path, caplog):
    whole = building.pack((many_plain / "sa_000004.tar").read_bytes())
    cut = 4 * len(whole) // 5
    for name, data in (("sa_000000.tar", whole[:cut]), ("sa_000001.tar", whole)):
        (tmp_path / name).write_bytes(data)
    said = f"sa_000000.tar: it is damaged: it ends at byte {cut:,}, before its"
    with pytest.raises(tf.errors.OpError, match=said):
        ids_of(sa1b_tfds.read_tars(tmp_path, decoders=ONLY_IDS))
    found = sa1b_tfds.read_tars(tmp_path, decoders=ONLY_IDS, on_error="skip", interleave=1)
    ids = ids_of(found)
    before = len(ids) - 9
    assert 0 < before < 9
    assert ids[:before] == ids[before : 2 * before]
    assert f"Skipped: {said}" in caplog.text


@pytest.mark.usefixtures("processes")
def test_a_killed_process_is_an_error_and_no_hang(many_plain, children):
    order = tar_records.Order(interleave=1)
    sources = [TarArchive(path) for path in sorted(many_plain.glob("*.tar"))]
    records = tar_records.read_records(sources, order, 1, Problems())
    next(records)
    [child] = children()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(processes.ProcessDied, match=r"was ended by SIGKILL.*try fewer workers"):
        list(records)
    assert all_end(children)


# Behind links.


@pytest.fixture(params=["plain", "gzip"])
def server(tars, monkeypatch, request):
    quick = TransferConfig(retries=3, timeout=5, backoff=0.01)
    monkeypatch.setattr(tar_stream, "TransferConfig", lambda: quick)
    files = {p.name: building.unpack(p.read_bytes()) for p in sorted(tars.glob("*.tar"))}
    if request.param == "gzip":
        files = {name: building.pack(data) for name, data in files.items()}
    with FaultServer(files) as server:
        yield server


def urls(server):
    return [server.url(name) for name in server.files]


def test_links_give_the_same_elements_and_store_nothing(server, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    expected = prepared.as_dataset(split="train", decoders=UNDECODED)
    found = sa1b_tfds.read_tars(urls(server), decoders=UNDECODED)
    assert_same_elements(found, expected)
    assert [len(server.of(name)) for name in server.files] == [1, 1]
    links = [Link(name=n, url=SignedUrl(server.url(n))) for n in server.files]
    assert_same_elements(sa1b_tfds.read_tars(links, decoders=UNDECODED), expected)
    assert os.listdir(tmp_path) == []


def streamed(server, name="sa_000000.tar", problems=None):
    link = Link(name=name, url=SignedUrl(server.url(name)))
    return list(tar_stream.stream_link(link, problems or Problems()))


BUSY = Fault(status=503, headers={"Retry-After": "0"})
CUT = [Fault(send=n) for n in (20_000, 10_001)]


@pytest.mark.parametrize(
    ("faults", "starts"),
    [
        (CUT, [0, 20_000, 30_001]),
        (
            [Fault(send=20_000), Fault(status=503, headers={"Retry-After": "0"})],
            [0, 20_000, 20_000],
        ),
        ([Fault(send=30_000), Fault(ignore_range=True)], [0, 0]),
        ([Fault(send=30_000), Fault(ignore_range=True, send=20_000)], [0, 0, 30_000]),
        ([Fault(send=30_000, chunked=True)], [0, 30_000]),
        ([Fault(chunked=True)], [0]),
        ([Fault(send=100, stall=0.2)], [0, 100]),
    ],
)
def test_a_broken_connection_goes_on_where_it_broke(server, tars, faults, starts):
    server.faults["sa_000000.tar"] = list(faults)
    expected = list(TarArchive(tars / "sa_000000.tar").pairs(Problems()))
    assert streamed(server) == expected
    assert [request.start for request in server.of("sa_000000.tar")] == starts


def another_file(server):
    server.files["sa_000000.tar"] = bytes(len(server.files["sa_000000.tar"]))


TORN = "torn here .*it claims|damaged: it ends at byte 30,000, before its compressed data does"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ([Fault(status=403, body=EXPIRED_BODY)], r"HTTP 403 \(URL signature expired\)"),
        ([Fault(status=404)], "HTTP 404"),
        ([Fault(send=0)] * 9, "gave up after 3 retries"),
        ([Fault(send=20_000), Fault(status=403, body=EXPIRED_BODY)], "HTTP 403"),
        ([Fault(add={"Content-Type": "text/html"})], "a web page instead"),
        ([Fault(add={"Content-Encoding": "gzip"})], "compressed the file"),
        ([Fault(truncate_to=30_000)], TORN),
        ([Fault(truncate_to=30_000, chunked=True)], TORN),
    ],
)
def test_what_is_wrong_with_a_link(server, faults, reason, caplog):
    """Said once with the tar's name; what came before is kept; no error shows the link."""
    server.faults["sa_000000.tar"] = list(faults)
    with pytest.raises(BadInput, match=rf"^sa_000000.tar: .*({reason})") as error:
        list(records_of(server, Problems()))
    chain, said = error.value, []
    while chain is not None:
        said.append(f"{chain!r} {chain.__cause__!r}")
        chain = chain.__context__
    server.faults["sa_000000.tar"] = list(faults)
    problems = Problems("skip")
    others = list(records_of(server, problems))
    assert len(others) >= 4  # all of the other tar
    text = " ".join([*said, *map(str, problems.found), caplog.text])
    assert "sa_000000.tar" in text
    assert SIGNATURE not in text
    assert "secret-path" not in text


def records_of(server, problems):
    links = [Link(name=n, url=SignedUrl(server.url(n))) for n in server.files]
    return tar_records.read_records(links, tar_records.Order(interleave=2), 1, problems)


WEAK = ({"ETag": None}, {"ETag": 'W/"1"'}, {"ETag": None, "Last-Modified": "Mon, 01 May 2023"})


@pytest.mark.parametrize("ignore_range", [False, True])
@pytest.mark.parametrize("headers", [{}, *WEAK])
def test_a_file_that_changes_meanwhile_is_never_joined(server, headers, ignore_range):
    second = Fault(ignore_range=ignore_range, add=headers, before=lambda: another_file(server))
    server.faults["sa_000000.tar"] = [Fault(send=30_000, add=headers), second]
    with pytest.raises(Exception, match="the file has changed on the server"):
        streamed(server)


@pytest.mark.parametrize("headers", WEAK)
def test_without_a_strong_etag_a_stream_reads_again_and_compares(server, tars, headers):
    faults = [Fault(send=30_000, add=headers), Fault(send=-9, add=headers), Fault(add=headers)]
    server.faults["sa_000000.tar"] = faults
    expected = list(TarArchive(tars / "sa_000000.tar").pairs(Problems()))
    assert streamed(server) == expected
    assert [request.start for request in server.of("sa_000000.tar")] == [0, 0, 0]


def test_a_stream_that_breaks_at_the_same_byte_ends(server):
    server.faults["sa_000000.tar"] = [Fault(send=30_000, ignore_range=True) for _ in range(20)]
    with pytest.raises(Exception, match="gave up after 3 retries"):
        streamed(server)
    assert len(server.of("sa_000000.tar")) == 4


def test_a_stream_of_unknown_size_has_an_end(server, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.download.transfer.stream.MOST_BYTES", 20_000)
    monkeypatch.setattr("sa1b_tfds.download.transfer.stream.READ_BYTES", 4096)
    server.faults["sa_000000.tar"] = [Fault(chunked=True)]
    with pytest.raises(Exception, match=r"does not say its size, and sent 20\.0 kB"):
        streamed(server)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("secret-name.tar", r"link 0 \(127.0.0.1\)"), ("sa_000007.tgz", r"sa_000007\.tgz")],
)
def test_only_a_tars_name_of_a_link_is_shown(server, name, shown):
    server.files[name] = b"no tar"
    dataset = sa1b_tfds.read_tars(server.url(name), decoders=ONLY_IDS)
    with pytest.raises(tf.errors.OpError, match=f"{shown}: .*torn") as error:
        ids_of(dataset)
    assert "secret" not in str(error.value)
