"""The encoders that come along: by name, as they scored best, and the list of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from selm import bundled
from selm.bundled import shelf
from selm.embedding.inference import load_encoder
from selm.errors import InputError


def test_every_encoder_is_there_and_opens_as_it_is_used() -> None:
    here = shelf()
    assert here.default == here.encoders[0].name and len({one.name for one in here.encoders}) == len(here.encoders)
    for one in here.encoders:
        config = load_encoder(one.name).config
        assert config.zooms == one.zooms and config.orientations == one.orientations and config.stages == one.stages
        assert (here.folder / one.folder / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: mit")
    assert load_encoder(None).config == load_encoder(here.default).config


def test_the_table_names_all_with_scores_beside_what_is_free() -> None:
    here, text = shelf(), shelf().table()
    for one in here.encoders:
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [one.name]]
        score = one.errors.get("1", one.trained_errors.get("1"))
        assert ("–" if score is None else f"{score:.3f}") in line and f"{one.bytes / 1e6:.1f} MB" in line
        as_trained = any(km in one.trained_errors and km not in one.errors for km in ("1", "15"))
        assert ("*" in line) == (one.name == here.default) and ("†" in line) == as_trained
    assert all(name in text for name in here.free) and here.limits in text and "15 km" in text


def test_a_wrong_name_gets_the_list() -> None:
    for use in (shelf().named, load_encoder):
        with pytest.raises(InputError, match=r"unknown encoder 'japan-wid'; did you mean 'japan-wide'\?") as error:
            use("japan-wid")
        assert all(one.name in str(error.value) for one in shelf().encoders)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / shelf().default).mkdir()
    with pytest.raises(InputError, match="holds no model"):
        load_encoder(shelf().default)


def test_an_installation_without_them_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PLACES", (tmp_path,))
    with pytest.raises(InputError, match="no encoders come with this installation"):
        shelf.__wrapped__()
    (tmp_path / bundled.LIST).write_text('{"encoders": [{}]}')
    with pytest.raises(InputError, match="not a list of encoders of this version"):
        shelf.__wrapped__()
