"""Filling notebooks: only what changed is run, nothing half-written stays, nothing of the machine goes into a page."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from selm import notebooks, paths
from selm.errors import InputError


@pytest.fixture
def book(tmp_path: Path) -> Path:
    folder = tmp_path / "book"
    (folder / "assets").mkdir(parents=True)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: first\n  - file: second\n")
    (folder / "intro.md").write_text("# Intro\n")
    (folder / "assets" / "selm.css").write_text("p {}\n")
    for name in ("first", "second"):
        write(folder / f"{name}.ipynb", "print(profile, 6 * 7)")
    return folder


def write(path: Path, *sources: str) -> None:
    parameters = new_code_cell('profile = "demo"', id="parameters", metadata={"tags": ["parameters"]})
    cells = [parameters, *(new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources))]
    nbformat.write(new_notebook(cells=cells), path)


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.text for cell in cells for output in cell.get("outputs", []) if "text" in output)


def test_only_what_changed_is_run_again(book: Path, tmp_path: Path) -> None:
    built = tmp_path / "build" / "book"
    assert [path.name for path in notebooks.fill("smoke", book, built)] == ["first.ipynb", "second.ipynb"]
    assert printed(built / "first.ipynb") == "smoke 42\n"
    assert (built / "intro.md").exists() and (built / "assets" / "selm.css").exists() and (built / "_toc.yml").exists()
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert notebooks.fill("smoke", book, built) == []
    assert before == {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    write(book / "second.ipynb", "print(profile, 'changed')")
    assert [path.name for path in notebooks.fill("smoke", book, built)] == ["second.ipynb"]


def test_a_failing_cell_leaves_the_rest_done_and_nothing_half_written(book: Path, tmp_path: Path) -> None:
    built = tmp_path / "build" / "book"
    write(book / "second.ipynb", "print('so far')", "raise ValueError('no such map')")
    with pytest.raises(InputError, match=r"second\.ipynb, cell \d+: ValueError: no such map") as error:
        notebooks.fill("smoke", book, built)
    assert "\n" not in str(error.value)
    assert printed(built / "first.ipynb") == "smoke 42\n"
    assert not (built / "second.ipynb").exists()
    write(book / "second.ipynb", "print('mended')")
    assert [path.name for path in notebooks.fill("smoke", book, built)] == ["second.ipynb"]  # the first stays done


def test_inputs_are_cells_profile_and_library_but_not_outputs(book: Path) -> None:
    path = book / "first.ipynb"
    key = notebooks.inputs_hash(path, "demo", "library")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [new_output("stream", name="stdout", text="42")]
    nbformat.write(notebook, path)
    assert notebooks.inputs_hash(path, "demo", "library") == key
    assert notebooks.inputs_hash(path, "smoke", "library") != key
    assert notebooks.inputs_hash(path, "demo", "another") != key


def test_library_hash_does_not_read_users_data() -> None:
    with_sources = notebooks.library_hash()
    assert len(with_sources) == 64 and with_sources == notebooks.library_hash()


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


def test_refresh_brings_outputs_back_and_then_changes_nothing(book: Path, tmp_path: Path) -> None:
    built = tmp_path / "build" / "book"
    assert len(notebooks.refresh("smoke", book, built)) == 2
    assert printed(book / "first.ipynb") == "smoke 42\n"
    cells = nbformat.read(book / "first.ipynb", as_version=4).cells
    assert [cell.id for cell in cells] == ["parameters", "cell-0"]  # papermill's own cell is gone
    assert [cell.execution_count for cell in cells] == [1, 2]
    assert notebooks.refresh("smoke", book, built) == []


def test_progress_goes_to_the_terminal_and_not_into_the_page(
    book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(book / "first.ipynb", "import sys; print('half way', file=sys.stderr); print('done')")
    built = tmp_path / "build" / "book"
    notebooks.fill("smoke", book, built)
    assert "half way" in capsys.readouterr().err
    assert printed(built / "first.ipynb") == "done\n"


def test_bad_profile_is_one_line(book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(book / "first.ipynb", "from selm.profiles import get_profile; get_profile(profile)")
    options = ["fill", "--profile", "dmeo", "--book", str(book), "--into", os.fspath(tmp_path / "build" / "book")]
    assert notebooks.main(options) == 2
    assert "unknown profile 'dmeo'; did you mean 'demo'?" in capsys.readouterr().err.splitlines()[-1]
