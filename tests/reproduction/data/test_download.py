"""Downloads against a server on this machine that misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reproduction.data.download import Expected, download
from selm.errors import InputError

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
SHA = hashlib.sha256(CONTENT).hexdigest()
WHOLE = Expected(len(CONTENT), SHA)


class Server(ThreadingHTTPServer):
    """`log` has (path, Range header) of each request; `plan` what the next requests get instead of a good answer."""

    daemon_threads = True

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.plan: list[str] = []
        self.content, self.etag, self.ranges = CONTENT, '"one"', True
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address) -> None:
        pass  # connections that the tests cut

    def url(self, name: str = "data.bin") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range", "")
        server.log.append((self.path, asked))
        step = server.plan.pop(0) if server.plan else "good"
        if step.isdigit():
            self.send_response(int(step))
            if step == "503":
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if step == "redirect":
            self.send_response(302)
            self.send_header("Location", server.url("moved.bin"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if step == "page":
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>")
            return
        start, whole = 0, server.content
        if_range = self.headers.get("If-Range")
        if asked and server.ranges and if_range in (None, server.etag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(whole):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(whole)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        body = whole[start:]
        self.send_header("Content-Length", str(len(body) + (1000 if step == "says more" else 0)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        if step == "drop":  # after a third of what is left, with a reset
            self.wfile.write(body[: max(len(body) // 3, 40_000)])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            return
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


class Waits(list):
    """Stands in for time.sleep: what was waited for."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def fetch(
    server: Server, folder: Path, expected: Expected | None = WHOLE, waits: Waits | None = None, **options
) -> Path:
    sleep = waits if waits is not None else Waits()
    return download(server.url(), folder / "data.bin", expected, progress=False, sleep=sleep, **options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_good_answer_becomes_the_file_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT and left(path.parent) == ["data.bin"]


def test_a_file_that_is_there_is_not_fetched_again_unless_it_is_wrong(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    fetch(server, tmp_path)
    assert server.log == []
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    fetch(server, tmp_path)
    assert len(server.log) == 1 and (tmp_path / "data.bin").read_bytes() == CONTENT


def test_dropped_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "drop", "drop"]
    waits = Waits()
    assert fetch(server, tmp_path, waits=waits).read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for _, asked in server.log]
    assert starts[0] == 0 and starts == sorted(set(starts)) and len(starts) == 4  # each further on than the last
    assert left(tmp_path) == ["data.bin"] and len(waits) == 3


def test_a_later_call_goes_on_where_one_was_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", *["500"] * 3]
    with pytest.raises(InputError, match=r"the server answers 500 .* \(3 times in a row\); what has come is kept"):
        fetch(server, tmp_path, tries=3)
    assert left(tmp_path) == [".data.bin.part", ".data.bin.part.json"]
    had = (tmp_path / ".data.bin.part").stat().st_size
    assert 0 < had < len(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.log[-1][1] == f"bytes={had}-"


def test_a_server_without_ranges_is_read_from_the_start_again(server: Server, tmp_path: Path) -> None:
    server.plan, server.ranges = ["drop"], False
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.log[1][1].startswith("bytes=")  # it was asked to go on


def test_another_edition_at_the_source_is_not_glued_to_the_old_one(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "404"]
    with pytest.raises(InputError):
        fetch(server, tmp_path, None)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch(server, tmp_path, None).read_bytes() == CONTENT[::-1]


def test_an_old_half_file_without_a_validator_is_dropped_when_the_hash_differs(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".data.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / ".data.bin.part.json").write_text(f'{{"url": "{server.url()}", "validator": "", "total": 0}}')
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.log] == ["bytes=1000-", ""]


def test_half_files_of_another_address_are_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".data.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / ".data.bin.part.json").write_text('{"url": "http://elsewhere/data.bin", "validator": "", "total": 0}')
    fetch(server, tmp_path, None)
    assert server.log[0][1] == "" and (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_finished_half_file_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    server.plan = ["drop", "404"]
    with pytest.raises(InputError):
        fetch(server, tmp_path)
    (tmp_path / ".data.bin.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_keeps_nothing_and_names_both(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"SHA-256 is {SHA}, expected {'0' * 64}; nothing was kept"):
        fetch(server, tmp_path, Expected(sha256="0" * 64))
    assert left(tmp_path) == []


def test_a_wrong_size_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"old")
    with pytest.raises(InputError, match="307200 bytes offered, 5 expected"):
        fetch(server, tmp_path, Expected(5))
    assert left(tmp_path) == ["data.bin"] and (tmp_path / "data.bin").read_bytes() == b"old"


def test_less_than_was_announced_is_not_taken_for_the_whole(server: Server, tmp_path: Path) -> None:
    server.plan, server.ranges = ["says more"] * 20, False
    with pytest.raises(InputError, match="times in a row"):
        fetch(server, tmp_path, None, tries=2)
    assert not (tmp_path / "data.bin").exists()


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.plan = ["redirect"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.log] == ["/data.bin", "/moved.bin"]


@pytest.mark.parametrize("code", ["401", "403", "404", "410"])
def test_a_wrong_address_is_said_at_once(server: Server, tmp_path: Path, code: str) -> None:
    server.plan = [code] * 9
    with pytest.raises(InputError, match=f"data.bin: the server answers {code}"):
        fetch(server, tmp_path)
    assert len(server.log) == 1 and left(tmp_path) == []


def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(server: Server, tmp_path: Path) -> None:
    server.plan = ["500", "502", "504", "503", "429"]
    waits = Waits()
    assert fetch(server, tmp_path, waits=waits).read_bytes() == CONTENT
    assert waits == [1, 2, 4, 7, 16]  # 503 said: Retry-After 7


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["503"] * 99
    with pytest.raises(InputError, match=r"the server answers 503 .* \(6 times in a row\)"):
        fetch(server, tmp_path)
    assert len(server.log) == 6 and left(tmp_path) == []


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.bin"
    with pytest.raises(InputError, match="Connection refused") as caught:
        download(url, tmp_path / "data.bin", progress=False, tries=2, sleep=Waits())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_a_web_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.plan = ["page"]
    with pytest.raises(InputError, match="a web page came instead of the file"):
        fetch(server, tmp_path, None)
    assert left(tmp_path) == []


def test_the_proxy_of_the_environment_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url("")[:-1])
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    path = download("http://data.example.org/far.bin", tmp_path / "far.bin", WHOLE, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.log[0][0] == "http://data.example.org/far.bin"  # the whole address, as proxies are asked


def test_two_processes_do_not_fetch_the_same_file(server: Server, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".data.bin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching it"):
            fetch(server, tmp_path)
    assert server.log == []


def test_a_full_disk_is_one_line_and_what_came_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reproduction.data.download._receive", full)
    with pytest.raises(InputError, match="the disk is full; make room and fetch again"):
        fetch(server, tmp_path)
    assert not (tmp_path / "data.bin").exists()
