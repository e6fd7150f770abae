"""Filling notebooks: only what changed is run, nothing half-written stays, nothing of the machine goes into a page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from reproduction import notebooks, paths
from selm.errors import InputError


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(notebooks, "library_hash", lambda: "library")
    folder = tmp_path / "book"
    (folder / "assets").mkdir(parents=True)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: first\n  - file: second\n")
    (folder / "intro.md").write_text("# Intro\n")
    (folder / "assets" / "selm.css").write_text("p {}\n")
    write(folder / "first.ipynb", "print(profile, 6 * 7)")
    return folder


def write(path: Path, *sources: str) -> None:
    parameters = new_code_cell('profile = "demo"', id="parameters", metadata={"tags": ["parameters"]})
    cells = [parameters, *(new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources))]
    nbformat.write(new_notebook(cells=cells), path)


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.text for cell in cells for output in cell.get("outputs", []) if "text" in output)


def test_only_what_changed_is_run_again(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "run_notebook", lambda source, target, *_: shutil.copyfile(source, target))
    write(book / "second.ipynb", "print('second')")
    built = tmp_path / "build" / "book"
    first, second = built / "first.ipynb", built / "second.ipynb"
    assert notebooks.fill("smoke", book, built) == [first, second]
    assert (built / "intro.md").exists() and (built / "assets" / "selm.css").exists() and (built / "_toc.yml").exists()
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert notebooks.fill("smoke", book, built) == []
    assert before == {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    write(book / "second.ipynb", "print('changed')")
    assert notebooks.fill("smoke", book, built) == [second]
    assert notebooks.fill("demo", book, built) == [first, second]
    monkeypatch.setattr(notebooks, "library_hash", lambda: "another library")
    assert notebooks.fill("demo", book, built) == [first, second]


def test_an_interrupted_call_goes_on_where_it_was(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(source: Path, target: Path, *_: str) -> None:
        if source.name == "second.ipynb":
            raise KeyboardInterrupt
        shutil.copyfile(source, target)

    write(book / "second.ipynb", "print('second')")
    built = tmp_path / "build" / "book"
    monkeypatch.setattr(notebooks, "run_notebook", run)
    with pytest.raises(KeyboardInterrupt):
        notebooks.fill("smoke", book, built)
    monkeypatch.setattr(notebooks, "run_notebook", lambda source, target, *_: shutil.copyfile(source, target))
    assert notebooks.fill("smoke", book, built) == [built / "second.ipynb"]


def test_refresh_runs_with_the_profile_and_brings_outputs_back(
    book: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(book / "first.ipynb", "import sys; print('half way', file=sys.stderr); print(profile, 6 * 7)")
    built = tmp_path / "build" / "book"
    assert notebooks.refresh("smoke", book, built) == [book / "first.ipynb"]
    assert "half way" in capfd.readouterr().err  # progress goes to the terminal …
    assert printed(book / "first.ipynb") == "smoke 42\n"  # … and not into the page
    cells = nbformat.read(book / "first.ipynb", as_version=4).cells
    assert [cell.id for cell in cells] == ["parameters", "cell-0"]  # papermill's own cell is gone
    assert [cell.execution_count for cell in cells] == [1, 2]
    assert notebooks.refresh("smoke", book, built) == []


def test_a_failing_cell_is_one_line_and_leaves_nothing_half_written(
    book: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(book / "first.ipynb", "from reproduction.profiles import get_profile; get_profile(profile)")
    built = tmp_path / "build" / "book"
    options = ["fill", "--profile", "dmeo", "--book", str(book), "--into", str(built)]
    assert notebooks.main(options) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("selm: first.ipynb, cell 3: InputError: unknown profile 'dmeo'; did you mean 'demo'?")
    assert not (built / "first.ipynb").exists() and not (tmp_path / "build" / "filled").exists()


def test_a_missing_table_of_contents_is_named(book: Path) -> None:
    with pytest.raises(InputError, match="no table of contents"):
        notebooks.chapters(book / "missing.yml")


def test_inputs_are_cells_profile_and_library_but_not_outputs(book: Path) -> None:
    path = book / "first.ipynb"
    key = notebooks.inputs_hash(path, "demo", "library")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [new_output("stream", name="stdout", text="42")]
    nbformat.write(notebook, path)
    assert notebooks.inputs_hash(path, "demo", "library") == key
    assert notebooks.inputs_hash(path, "smoke", "library") != key
    assert notebooks.inputs_hash(path, "demo", "another") != key


def test_library_hash_covers_code_and_committed_data_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    for name in (
        "selm/maps/atlas.py",
        "selm/maps/styles/selm.xml",
        "reproduction/pages/tables.py",
        "data/paper/table1.csv",
        "data/sources/big.mbtiles",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    key = notebooks.library_hash()
    (tmp_path / "data/sources/big.mbtiles").write_text("two")
    assert notebooks.library_hash() == key
    for name in (
        "selm/maps/atlas.py",
        "selm/maps/styles/selm.xml",
        "reproduction/pages/tables.py",
        "data/paper/table1.csv",
    ):
        (tmp_path / name).write_text("two")
        assert notebooks.library_hash() != key, name
        key = notebooks.library_hash()


def test_clean_takes_out_what_belongs_to_the_machine() -> None:
    text = f"{paths.runs()}/atlases and {paths.repository()}/selm and {Path.home()}/x at 0x7f3a5c1e9d30\n"
    html = '<style>#T_a1b2c_row0 {}</style><table id="T_a1b2c"></table><table id="T_ff00f"></table>'
    cell = new_code_cell("x", execution_count=3, metadata={"papermill": {"start_time": "now"}, "tags": ["a"]})
    cell.outputs = [
        new_output("stream", name="stderr", text="100%|#####|"),
        new_output("stream", name="stdout", text=text),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        new_output("execute_result", {"text/html": html}, execution_count=3),
    ]
    injected = new_code_cell('profile = "smoke"', metadata={"tags": ["injected-parameters"]})
    notebook = new_notebook(cells=[cell, injected], metadata={"papermill": {"duration": 3.0}, "widgets": {}})
    cleaned = notebooks.clean(notebook)
    assert set(cleaned.metadata) == {"kernelspec", "language_info"}
    assert cleaned.cells[0].metadata == {"tags": ["a"]}
    assert [output.output_type for output in cleaned.cells[0].outputs] == ["stream", "execute_result"]
    assert cleaned.cells[0].outputs[0].text == "runs/atlases and selm and ~/x at 0x…\n"
    shown = cleaned.cells[0].outputs[1].data["text/html"]
    assert shown == '<style>#T_00000_row0 {}</style><table id="T_00000"></table><table id="T_00001"></table>'
    assert cleaned.cells[1].id == "injected-parameters" and "remove-cell" in cleaned.cells[1].metadata.tags
    nbformat.validate(cleaned)


def test_the_address_comes_from_the_remote(book: Path, tmp_path: Path) -> None:
    config = tmp_path / "_config.yml"
    unknown = "/".join(("https://github.com", "OWNER", "selm"))  # written out in _config.yml alone
    placeholder = f'repository:\n  url: {unknown}\nlaunch_buttons:\n  colab_url: ""\n'
    config.write_text(placeholder)
    cell = new_code_cell(notebooks.colab_cell(unknown), metadata={"tags": ["colab"]})
    assert "git clone" not in cell.source and "raise SystemExit" in cell.source
    nbformat.write(new_notebook(cells=[cell]), book / "first.ipynb")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(InputError, match="no remote on GitHub"):
        notebooks.write_address(book, config)
    assert config.read_text() == placeholder
    assert "no page has a button" in notebooks.colab_words(config)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", "git@github.com:a-b/maps.git"], check=True)
    assert notebooks.write_address(book, config) == [book / "first.ipynb"]
    assert "The rocket" in notebooks.colab_words(config)
    assert "url: https://github.com/a-b/maps\n" in config.read_text() and "colab.research" in config.read_text()
    source = nbformat.read(book / "first.ipynb", as_version=4).cells[0].source
    assert '"https://github.com/a-b/maps", code]' in source
    assert compile(source, "cell", "exec")
