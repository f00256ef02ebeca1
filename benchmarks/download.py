"""`sa1b download` beside parallel curl, over loopback: throughput, CPU seconds a GB, memory.

    python benchmarks/download.py [--connections 4] [--gigabytes 2] [--rounds 2] [--dir /dev/shm]

Both fetch the same tars with as many connections from a server that only calls sendfile, into a
folder in memory, so that no disk sets the pace; the times are of the whole commands, their start
included. curl checks nothing and syncs nothing. `--verify size` does curl's work, a sync and a look
at the tar's headers; `--verify md5`, the default, hashes every byte as well, which curl's user
would do afterwards with md5sum.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

from sa1b_tfds.download.check import hash_file

PAIR_BYTES = 1_000_000


def make_tar(path: Path, size: int) -> None:
    """A tar of pairs of about `size` bytes. The same image again and again: nobody compresses."""
    image = os.urandom(PAIR_BYTES)
    with tarfile.open(path, "w") as tar:
        for index in range(max(1, size // PAIR_BYTES)):
            for suffix, data in ((".jpg", image), (".json", b"{}")):
                member = tarfile.TarInfo(f"./sa_{index}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def serve(path: Path, listener: socket.socket) -> None:
    """Answers every GET with the file, or with what its Range asks for."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(ConnectionError):
                answer_until_closed(connection)

        def answer_until_closed(connection: socket.socket) -> None:
            request = b""
            while True:
                while b"\r\n\r\n" not in request:
                    received = connection.recv(65536)
                    if not received:
                        return
                    request += received
                ranged = re.search(rb"\r\nRange: bytes=(\d+)-(\d*)", request, re.I)
                start = int(ranged[1]) if ranged else 0
                end = int(ranged[2]) + 1 if ranged and ranged[2] else size
                status = "206 Partial Content" if ranged else "200 OK"
                head = f'HTTP/1.1 {status}\r\nContent-Length: {end - start}\r\nETag: "1"\r\n'
                if ranged:
                    head += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
                connection.sendall(f"{head}\r\n".encode())
                request = b""
                while start < end:
                    start += os.sendfile(connection.fileno(), file.fileno(), start, end - start)

        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def run(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak resident bytes of a command that must succeed."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    # The kernel's ru_maxrss of a child begins with its parent's, so ask for the child's own.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak = int(found[1]) * 1024 if found else peak
        time.sleep(0.02)
    seconds = time.monotonic() - began
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"failed: {command}")
    return seconds, usage.ru_utime + usage.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="in all (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dir", help="a folder in memory (one of its own in /dev/shm)")
    options = parser.parse_args()

    root = Path(tempfile.mkdtemp(prefix="sa1b_", dir=options.dir or "/dev/shm"))
    try:
        compare(root, options.connections, options.gigabytes, options.rounds)
    finally:
        shutil.rmtree(root)


def compare(root: Path, connections: int, gigabytes: float, rounds: int) -> None:
    source = root / "source.tar"
    make_tar(source, int(gigabytes * 1e9 / connections))
    total = connections * source.stat().st_size / 1e9
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = multiprocessing.get_context("fork").Process(
        target=serve, args=(source, listener), daemon=True
    )
    server.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"

    names = [f"sa_{number:06d}.tar" for number in range(connections)]
    (root / "links.txt").write_text("".join(f"{name}\t{base}/{name}\n" for name in names))
    digest = hash_file(source).hexdigest()
    (root / "md5.txt").write_text("".join(f"{digest}  {name}\n" for name in names))

    out = root / "out"
    curl = ["curl", "-s", "-Z", "--parallel-immediate", "--parallel-max", str(connections)]
    for name in names:
        curl += ["-o", str(out / name), f"{base}/{name}"]
    ours = [sys.executable, "-m", "sa1b_tfds", "download", "--output-dir", str(out)]
    ours += ["--links-file", str(root / "links.txt"), "--md5-file", str(root / "md5.txt")]
    ours += ["--workers", str(connections), "--verify"]
    commands = {"curl -Z": curl, "sa1b, size": [*ours, "size"], "sa1b, md5": [*ours, "md5"]}

    runs: dict[str, list[tuple[float, float, int]]] = {label: [] for label in commands}
    for _ in range(rounds):
        for label, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            runs[label].append(run(command))

    print(f"{total:.1f} GB, {connections} connections, median of {rounds} rounds")
    medians = {
        label: [statistics.median(x) for x in zip(*r, strict=True)] for label, r in runs.items()
    }
    for label, (seconds, cpu, peak) in medians.items():
        print(
            f"{label:<11} {total / seconds:5.2f} GB/s   "
            f"ratio {medians['curl -Z'][0] / seconds:4.2f}   "
            f"{cpu / total:4.2f} CPU s/GB   peak {peak / 1e6:4.0f} MB"
        )
    # curl compares no checksum: like with like is the run that only checks sizes and the tar.
    print(f"ratio: {medians['curl -Z'][0] / medians['sa1b, size'][0]:.2f}")
    server.terminate()


if __name__ == "__main__":
    main()
