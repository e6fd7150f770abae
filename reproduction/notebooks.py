"""The book's notebooks: papermill fills copies of them, and what differs from machine to machine is taken out.

``python -m reproduction.notebooks fill --profile demo --into build/book`` copies `book/` and runs every notebook of
`_toc.yml` whose inputs changed: its cells, the code, the committed data, the profile. Notebooks that are done stay
done, so an interrupted call goes on where it was. ``refresh`` does the same and then brings the outputs back into
`book/`; ``address`` writes the address of the checkout's remote into `_config.yml` and the cell that sets up Colab.
"""

from __future__ import annotations

import argparse
import fcntl
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reproduction import paths, warm_kernels
from selm.errors import InputError
from selm.files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

_ON_COLAB = """\
# On Google Colab only: fetch the code and install what it needs.
try:
    import google.colab  # noqa: F401
except ImportError:
    pass
else:
"""
COLAB = """\
    import subprocess
    import sys

    code = "/content/selm"
    subprocess.run(["git", "clone", "-q", "--depth", "1", "{address}", code], check=False)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", f"{{code}}[maps,plots,probes]"], check=True)
    sys.path.insert(0, code)"""
NO_ADDRESS = """\
    raise SystemExit("This copy does not say where its code lies: run `make address` in a checkout with a remote.")"""
COLAB_SITE = "https://colab.research.google.com"

_LAST = "does-it-run"  # it says what the others have computed
_NOT_COPIED = {"_build", "_toc.yml", "__pycache__", ".ipynb_checkpoints", ".pytest_cache"}


def chapters(toc: Path) -> list[str]:
    """The pages that `_toc.yml` names, in reading order, without suffix."""
    import yaml

    try:
        content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{toc}: no table of contents here") from None
    names = [content["root"]]
    for part in [content, *content.get("parts", [])]:
        names += [chapter["file"] for chapter in part.get("chapters", [])]
    return names


def repository_address(config: Path) -> str:
    """The repository's address, written once, in `_config.yml`."""
    import yaml

    return str(yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["url"])


def colab_cell(address: str) -> str:
    """The cell that sets up Colab; while the address is the placeholder, it says so there."""
    return _ON_COLAB + (NO_ADDRESS if "/OWNER/" in address else COLAB.format(address=address))


def colab_words(config: Path) -> str:
    """For a page: how its notebooks open on Colab, or why this copy's do not."""
    if "/OWNER/" in repository_address(config):
        return ("This copy does not know the address of its code, so no page has a button for Colab. "
                "In a checkout with a remote on GitHub, `make address` writes it, and the buttons appear.")  # fmt: skip
    return (
        "The rocket above opens it on Google Colab, where its first cell fetches the code and installs what it needs."
    )


def remote_address(folder: Path) -> str:
    """The web address of the GitHub remote of a checkout, however git writes it; InputError where there is none."""
    asked = ["git", "-C", str(folder), "remote", "-v"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    found = re.search(r"github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?\s", listed)
    if not found:
        raise InputError(f"{folder}: this checkout has no remote on GitHub, so there is no address to write")
    return f"https://github.com/{found[1]}/{found[2]}"


def notebooks(book: Path) -> list[Path]:
    """The notebooks of the book, in reading order."""
    candidates = (book / f"{name}.ipynb" for name in chapters(book / "_toc.yml"))
    return [path for path in candidates if path.exists()]


def library_hash() -> str:
    """SHA-256 of the code's files and of the committed data: what every notebook depends on."""
    root = paths.repository()
    digest = hashlib.sha256()
    for folder in (root / "selm", root / "reproduction", root / "data"):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and "__pycache__" not in inside.parts and inside.parts[:2] != ("data", "sources"):
                digest.update(f"{inside.as_posix()}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def inputs_hash(notebook: Path, profile: str, library: str) -> str:
    """SHA-256 of what a notebook's outputs come from; its stored outputs do not count."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    content = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps([content, profile, library]).encode()).hexdigest()


def clean(notebook: NotebookNode) -> NotebookNode:
    """`notebook`, changed in place, without what has no place in a page or changes without a reason.

    Gone are progress bars and warnings (the terminal had them), papermill's and the kernel's records of times and
    versions, and widget states; random ids and addresses in memory become counted ones; the machine's folders become
    relative ones.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    ids: dict[str, str] = {}
    for number, cell in enumerate(notebook.cells):
        tags = list(cell.metadata.get("tags", []))
        if "injected-parameters" in tags:
            cell["id"] = "injected-parameters"
            tags = ["injected-parameters", "remove-cell"]
        elif re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]{27})?", cell.get("id", "")):
            cell["id"] = f"cell-{number}"
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            output
            for output in cell.outputs
            if output.get("name") != "stderr"
            and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        ]
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if "text" in output:
                output["text"] = _portable(output["text"], ids)
            if "traceback" in output:
                output["traceback"] = [_portable(line, ids) for line in output["traceback"]]
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/") and isinstance(content, str):
                    output["data"][kind] = _portable(content, ids)
    return notebook


def _portable(text: str, ids: dict[str, str]) -> str:
    folders = {
        f"{paths.runs()}/": "runs/",
        f"{paths.sources()}/": "$SELM_DATA/",
        f"{paths.repository()}/": "",
        f"{Path(sys.prefix)}/": "",
        f"{Path.home()}/": "~/",
    }
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, folders[folder])
    text = re.sub(r"\b0x[0-9a-f]{9,16}\b", "0x…", text)
    # pandas names a styled table, its rows and its cells after a random number
    return re.sub(r"\bT_[0-9a-f]{5}(?![0-9a-f])", lambda found: ids.setdefault(found[0], f"T_{len(ids):05d}"), text)


class _Bars:
    """The kernel's standard error on this terminal: its progress bars, line by line where this is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text if self.stream.isatty() else text.replace("\r", "\n"))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def run_notebook(source: Path, target: Path, profile: str, kernel: str = warm_kernels.ORDINARY) -> None:
    """Run the notebook `source` with `profile` and write it to `target`, which appears only when every cell ran.

    Raises InputError when a cell fails; the unfinished notebook is then kept beside `target`'s folder for a look.
    """
    import nbformat
    import papermill

    unfinished = target.parent.parent / "unfinished" / target.name
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source,
            unfinished,
            parameters={"profile": profile},
            kernel_name=kernel,
            language="python",
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not a line about transports for every kernel
            progress_bar={"desc": f"{source.name}, cells"},
            stderr_file=_Bars(sys.stderr),
            cwd=target.parent,
            shutdown_kernel="immediate",  # every cell has run; a kernel asked to leave takes some seconds for it
        )
    except papermill.PapermillExecutionError as error:
        raise InputError(
            f"{source.name}, cell {error.cell_index + 1}: {error.ename}: {error.evalue} "
            f"(as far as it came: {os.path.relpath(unfinished)})"
        ) from None
    filled = clean(nbformat.read(unfinished, as_version=4))
    write_text(target, nbformat.writes(filled) + "\n")
    unfinished.unlink()


def fill(profile: str, book: Path, into: Path) -> list[Path]:
    """Copy `book` to `into` and run its notebooks there; returns those that had to be run.

    A notebook whose inputs are those of the last time is left as it is. Another process that fills the same folder
    waits, and finds it done.
    """
    into.mkdir(parents=True, exist_ok=True)
    with _alone(into):
        return _filled(profile, book, into)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process after the other in a folder; the system lets the next one in when one ends, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _filled(profile: str, book: Path, into: Path) -> list[Path]:
    # of small networks: threads that wait for each other cost more processor time than they save, several times as
    # much where other work runs beside them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _copy_pages(book, into)
    library, todo = library_hash(), []
    for source in sorted(notebooks(book), key=lambda path: path.stem == _LAST):
        stamp = into.parent / "filled" / f"{source.stem}.sha256"
        key = inputs_hash(source, profile, library)
        if not ((into / source.name).exists() and stamp.exists() and stamp.read_text() == key):
            todo.append((source, stamp, key))
    if not todo:
        return []
    with warm_kernels.session() as kernel:
        for source, stamp, key in todo:
            print(f"filling {source.name} (profile {profile})", file=sys.stderr, flush=True)
            run_notebook(source, into / source.name, profile, kernel)
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(key)
    return [into / source.name for source, _, _ in todo]


def _copy_pages(book: Path, into: Path) -> None:
    """Everything but notebooks; files that did not change keep their times, by which Sphinx knows what to rebuild."""
    sources = {book / "_toc.yml"}
    for path in book.rglob("*"):
        if path.is_file() and path.suffix != ".ipynb" and not _NOT_COPIED.intersection(path.relative_to(book).parts):
            sources.add(path)
    for source in sources:
        target = into / source.relative_to(book)
        if not target.exists() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def refresh(profile: str, book: Path, into: Path) -> list[Path]:
    """Fill, then bring the outputs back into `book`'s own notebooks; returns those whose file changed."""
    import nbformat

    fill(profile, book, into)
    changed = []
    for source in notebooks(book):
        filled = nbformat.read(into / source.name, as_version=4)
        filled.cells = [cell for cell in filled.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        runs = [cell for cell in filled.cells if cell.get("execution_count")]
        for number, cell in enumerate(runs, start=1):
            cell["execution_count"] = number
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = number
        if _write(filled, source):
            changed.append(source)
    return changed


def write_address(book: Path, config: Path) -> list[Path]:
    """Write the address of the checkout's remote into `config`, and the Colab cell with it into every notebook; returns
    the notebooks whose file changed."""
    import nbformat

    address = remote_address(config.parent)
    text = config.read_text(encoding="utf-8").replace(repository_address(config), address)
    write_text(config, text.replace('colab_url: ""', f"colab_url: {COLAB_SITE}"))
    changed = []
    for source in notebooks(book):
        notebook = nbformat.read(source, as_version=4)
        for cell in notebook.cells:
            if "colab" in cell.metadata.get("tags", []):
                cell["source"] = colab_cell(address)
        if _write(notebook, source):
            changed.append(source)
    return changed


def _write(notebook: Any, path: Path) -> bool:
    import nbformat

    text = nbformat.writes(notebook) + "\n"
    if text == path.read_text(encoding="utf-8"):
        return False
    write_text(path, text)
    return True


def main(arguments: list[str] | None = None) -> int:
    root = paths.repository()
    parser = argparse.ArgumentParser(prog="python -m reproduction.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("fill", "refresh", "address"))
    parser.add_argument("--profile", default=os.environ.get("SELM_PROFILE", "demo"))
    parser.add_argument("--book", type=Path, default=root / "book")
    parser.add_argument("--into", type=Path, default=root / "build" / "book")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "fill":
            changed = fill(options.profile, options.book, options.into)
        elif options.verb == "refresh":
            changed = refresh(options.profile, options.book, options.into)
        else:
            changed = write_address(options.book, root / "_config.yml")
    except InputError as error:
        print(f"selm: {error}", file=sys.stderr)
        return 2
    print(f"{options.verb}: {', '.join(path.name for path in changed) or 'nothing changed'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
