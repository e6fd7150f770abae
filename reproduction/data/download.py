"""One file over HTTP, whole or not at all: goes on where it broke off, and is checked before it has its name.

The transfer itself is `requests`' (redirects, TLS, proxies from the environment). `pooch`, which fetches data for many
scientific packages, checks hashes but starts a broken download over, so resuming is here: the bytes so far lie beside
the target as ``.NAME.part``, with what the server said of them in ``.NAME.part.json``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from selm.errors import DISK_FULL, InputError
from selm.files import written

if TYPE_CHECKING:
    from requests import Response

CHUNK = 2**14  # bytes read together, and at most lost when a connection breaks
CONNECT_S, READ_S = 20.0, 60.0  # seconds without an answer or a byte after which an attempt is given up
TRIES = 6  # attempts in a row that bring nothing
WAIT_S = 1.0  # before the second attempt; doubled each time
LONGEST_WAIT_S = 60.0
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_AGENT = "selm (data sets for a reproduction; one file at a time)"


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there: its size in bytes and its SHA-256 (hex)."""

    size: int | None = None
    sha256: str | None = None


class _TryAgain(Exception):
    """An attempt that ended early; its message says why. `after` is the server's wish, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    target: str | Path,
    expected: Expected | None = None,
    *,
    progress: bool = True,
    tries: int = TRIES,
    wait: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch `url` into the file `target` and return it; a file that is there and is what is expected is kept.

    A connection that breaks is taken up where it broke (HTTP Range), also by a later call; a server that cannot do that
    is read from the start again. Busy servers (429, 5xx) and broken connections are tried again, `tries` times in a row
    without a new byte, after `wait` seconds, then twice that and so on, or what the server asks for (at most a minute).
    Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).

    Raises InputError, one line, when the address is wrong (4xx), when the server stays away, when what came is not of
    the expected size or hash or is a web page, when the disk is full, or when another process fetches the same file.
    `target` then is not there, or is as it was.
    """
    target, expected = Path(target), expected or Expected()
    if target.exists() and _fault(target, expected) is None:
        return target
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            resumed = part.exists() and part.stat().st_size > 0
            _transfer(url, part, expected, progress, tries, wait, sleep)
            fault = _fault(part, expected)
            if fault and resumed:  # the file changed at its source since it was begun
                _forget(part)
                _transfer(url, part, expected, progress, tries, wait, sleep)
                fault = _fault(part, expected)
            if fault:
                _forget(part)
                raise InputError(f"{url}: {fault}; nothing was kept")
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
            _forget(part)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise InputError(f"{target}: the disk is full; make room and fetch again, it goes on from there") from None
        raise InputError(f"{target}: {error.strerror or error}") from None
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """No second process fetches the same file; the lock goes with its holder, however it ends."""
    lock = target.with_name(f".{target.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{target}: another process is fetching it") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _fault(path: Path, expected: Expected) -> str | None:
    """What is wrong with a finished file; None where nothing is."""
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        return f"{size} bytes came, {expected.size} expected"
    if expected.sha256 is not None and (found := sha256_of(path)) != expected.sha256:
        return f"SHA-256 is {found}, expected {expected.sha256}"
    return None


def _transfer(
    url: str, part: Path, expected: Expected, progress: bool, tries: int, wait: float, sleep: Callable[[float], None]
) -> None:
    """Bring all of `url` into `part`."""
    failures = 0
    with tqdm(total=expected.size, desc=part.name[1 : -len(".part")], unit="B", unit_scale=True, unit_divisor=1024,
              disable=not progress) as bar:  # fmt: skip
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _attempt(url, part, expected, bar)
                return
            except _TryAgain as trouble:
                gained = (part.stat().st_size if part.exists() else 0) > before
                failures = 0 if gained else failures + 1
                if failures >= tries:
                    raise InputError(f"{url}: {trouble} ({tries} times in a row); what has come is kept") from None
                pause = wait * 2 ** max(failures - 1, 0) if trouble.after is None else trouble.after
                bar.set_postfix_str(f"{trouble}; again in {min(pause, LONGEST_WAIT_S):.0f} s")
                sleep(min(pause, LONGEST_WAIT_S))


def _attempt(url: str, part: Path, expected: Expected, bar: Any) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    known = json.loads(_note(part).read_text()) if have and _note(part).exists() else {}
    if have and known.get("url") != url:
        _forget(part)
        have, known = 0, {}
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}  # bytes as they are, so that offsets count
    if have:
        headers["Range"] = f"bytes={have}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]  # the rest of the same edition, else all of the new one
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_S, READ_S)) as answer:
            total = _begin(answer, url, part, have, expected)
            if total is None:  # everything had come already
                return
            bar.total = bar.total or total or None
            _receive(answer, part, bar, total)
    except requests.exceptions.ProxyError as error:
        raise _TryAgain(f"the proxy does not answer ({_reason(error)})") from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TryAgain(_reason(error)) from None
    except requests.RequestException as error:
        raise InputError(f"{url}: cannot be fetched ({_reason(error)})") from None


def _begin(answer: Response, url: str, part: Path, have: int, expected: Expected) -> int | None:
    """Set `part` to the byte that the answer starts at; the whole size (0: not said), or None if nothing is left."""
    code = answer.status_code
    if code in _TRY_AGAIN:
        after = answer.headers.get("Retry-After", "")
        raise _TryAgain(f"the server answers {code} {answer.reason}", float(after) if after.isdigit() else None)
    if code == 416:  # nothing from there on: everything has come, or the file at its source is another
        size = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
        if have and size and int(size[1]) == have:
            return None
        _forget(part)
        raise _TryAgain("the file is shorter at its source now")
    if code not in (200, 206):
        raise InputError(f"{url}: the server answers {code} {answer.reason}")
    if expected.sha256 is None and answer.headers.get("Content-Type", "").startswith("text/html"):
        raise InputError(f"{url}: a web page came instead of the file (an error, or a form to fill in)")
    length = int(answer.headers.get("Content-Length") or 0)
    if code == 206:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != have:
            _forget(part)
            raise _TryAgain("the server sent another part than was asked for")
        total = int(span[3]) if span[3] != "*" else have + length
    else:
        total = length
        _forget(part)  # all of it, from the start
    if expected.size is not None and total and total != expected.size:
        _forget(part)
        raise InputError(f"{url}: {total} bytes offered, {expected.size} expected; nothing was kept")
    strong = answer.headers.get("ETag", "")
    validator = strong if strong and not strong.startswith("W/") else answer.headers.get("Last-Modified", "")
    with written(_note(part)) as file:
        file.write_text(json.dumps({"url": url, "validator": validator, "total": total}))
    return total


def _receive(answer: Response, part: Path, bar: Any, total: int) -> None:
    with part.open("ab") as file:
        bar.n = file.tell()
        bar.refresh()
        for chunk in answer.iter_content(CHUNK):  # raises where the connection breaks or ends early
            file.write(chunk)
            bar.update(len(chunk))
        if total and file.tell() < total:
            raise _TryAgain(f"the connection ended after {file.tell()} of {total} bytes")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    inner = re.findall(r"(?:Errno -?\d+\] |: )([A-Z][a-z][\w ,'-]+)", text)
    return (inner[-1] if inner else text)[:120]
