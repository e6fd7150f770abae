"""Location encoders: their frame, their position encodings from the equations, and files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from selm.errors import InputError
from selm.maps.mercator import haversine_m

FRAME = Frame(43.0, 141.0, 100_000.0)
SMALL = LocationConfig(
    "raw", "relu", FRAME, 6, hidden=8, scales=4, shortest_m=2_000.0, sigmas=(1.0, 8.0), features=5, degrees=4
)


def config(position: str, network: str = "relu", **changes: object) -> LocationConfig:
    return dataclasses.replace(SMALL, position=position, network=network, **changes)  # type: ignore[arg-type]


def test_frame_holds_its_places_and_is_in_metres() -> None:
    lat, lon = np.array([43.0, 43.9, 42.2]), np.array([141.0, 142.3, 140.9])
    frame = Frame.around(lat, lon)
    at = frame.scaled(torch.tensor(np.stack([lat, lon], axis=1)))
    assert at.abs().max().item() == pytest.approx(1 / 1.05)
    north = frame.scaled(torch.tensor([[frame.lat + 0.5, frame.lon]], dtype=torch.float64))[0]
    metres = haversine_m(frame.lat, frame.lon, frame.lat + 0.5, frame.lon)
    assert north[0] == 0 and north[1].item() * frame.half_m == pytest.approx(float(metres), rel=1e-9)
    east = frame.scaled(torch.tensor([[frame.lat, frame.lon + 0.5]], dtype=torch.float64))[0]
    metres = haversine_m(frame.lat, frame.lon, frame.lat, frame.lon + 0.5)
    assert east[0].item() * frame.half_m == pytest.approx(float(metres), rel=1e-5) and abs(east[1]) < 1e-12


def test_frame_across_the_date_line_and_without_places() -> None:
    frame = Frame(0.0, 179.5, 100_000.0)
    a, b = frame.scaled(torch.tensor([[0.0, 179.0], [0.0, -180.0]], dtype=torch.float64))
    assert a[0].item() == pytest.approx(-b[0].item())
    with pytest.raises(InputError, match="no coordinates"):
        Frame.around([], [])
    with pytest.raises(InputError, match="frame: row 0"):
        Frame.around([141.0], [43.0])


def test_sinusoidal_from_its_equation() -> None:
    encoder = LocationEncoder(config("sinusoidal"))
    place = torch.tensor([[43.3, 141.2]], dtype=torch.float64)
    u, v = FRAME.scaled(place)[0].tolist()
    found = encoder.positions(place)[0, 0]
    assert found.shape == (16,)
    expected = []
    for coordinate in (u, v):
        for s in range(4):
            metres = 200_000 * (2_000 / 200_000) ** (s / 3)
            expected.append(2 * math.pi * coordinate * 100_000 / metres)
    np.testing.assert_allclose(found[:8], np.sin(expected), atol=1e-6)
    np.testing.assert_allclose(found[8:], np.cos(expected), atol=1e-6)


def test_fourier_is_a_sum_over_a_hierarchy() -> None:
    encoder = LocationEncoder(config("fourier"))
    places = torch.tensor([[43.3, 141.2], [42.9, 140.8]], dtype=torch.float64)
    positions = encoder.positions(places)
    assert positions.shape == (2, 2, 10)
    at = FRAME.scaled(places)
    for part in range(2):
        phase = 2 * math.pi * at @ encoder.directions[part].double()
        np.testing.assert_allclose(positions[part, :, :5], phase.cos(), atol=1e-6)
        np.testing.assert_allclose(positions[part, :, 5:], phase.sin(), atol=1e-6)
    apart = encoder.networks[0](positions[0]) + encoder.networks[1](positions[1])
    torch.testing.assert_close(encoder(places), apart)
    many = LocationEncoder(config("fourier", features=4000))
    assert many.directions.std(dim=(1, 2)).tolist() == pytest.approx([1.0, 8.0], rel=0.05)


def test_harmonics_have_unit_mean_square_on_the_sphere() -> None:
    encoder = LocationEncoder(config("harmonics", "siren", degrees=3, span_degrees=45.0))
    place = torch.tensor([[43.0 + math.degrees(0.5 * 100_000 / 6_371_008.8), 141.0]], dtype=torch.float64)
    found = encoder.positions(place)[0, 0]  # at 22.5° north of the blown-up sphere, on its zero meridian
    lat = math.radians(22.5)
    expected = [1.0, 0.0, math.sqrt(3) * math.sin(lat), math.sqrt(3) * math.cos(lat)]
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)


@pytest.mark.parametrize("position", ["raw", "sinusoidal", "fourier", "harmonics"])
@pytest.mark.parametrize("network", ["relu", "siren"])
def test_every_combination_embeds_saves_and_loads(position: str, network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = LocationEncoder(config(position, network))
    rng = np.random.default_rng(0)
    places = torch.tensor(np.stack([rng.uniform(42.5, 43.5, 50), rng.uniform(140.5, 141.5, 50)], axis=1))
    found = encoder.embed(places, batch=16)
    assert found.shape == (50, 6) and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert found.std(dim=0).min() > 1e-4  # places differ
    encoder.save_pretrained(tmp_path)
    again = LocationEncoder.from_pretrained(tmp_path)
    assert again.config == encoder.config
    torch.testing.assert_close(again.embed(places, batch=16), found, rtol=0, atol=0)
    far = encoder.embed(torch.tensor([[-89.0, -40.0]], dtype=torch.float64))
    assert torch.isfinite(far).all()  # outside the frame


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'fourier'"):
        LocationEncoder(config("furier"))
    with pytest.raises(InputError, match="unknown network 'tanh'"):
        LocationEncoder(config("raw", "tanh"))
    encoder = LocationEncoder(config("raw"))
    with pytest.raises(InputError, match="row 1 is not a coordinate"):
        encoder.embed(torch.tensor([[43.0, 141.0], [float("nan"), 1.0]]))
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        encoder.embed(torch.zeros(3))
    encoder.save_pretrained(tmp_path)
    (tmp_path / "location.json").write_text("{}")
    with pytest.raises(InputError, match="not a location encoder's configuration"):
        LocationEncoder.from_pretrained(tmp_path)
