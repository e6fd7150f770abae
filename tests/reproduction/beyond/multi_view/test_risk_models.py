"""The additive model: what it can follow and what it cannot, out of fold."""

from __future__ import annotations

import numpy as np
import pytest

from reproduction.beyond.multi_view import risk_models
from selm.errors import InputError
from selm.probes.folds import random_folds
from selm.probes.frozen import ridge

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (400, 3))
FOLDS = random_folds(len(X), range(1), 5)


def test_without_pygam_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(risk_models, "has_gam", lambda: False)
    with pytest.raises(InputError, match=r"pip install '\.\[gam\]'"):
        risk_models.gam(X, X[:, 0], FOLDS, most=3)


def test_a_sum_of_curves_is_followed_and_no_product() -> None:
    pytest.importorskip("pygam")
    noise = 0.1 * RNG.normal(size=len(X))
    curves = np.sin(3 * X[:, 0]) + X[:, 1] ** 2 + noise
    additive = float(risk_models.gam(X, curves, FOLDS, most=3).values("mse")[0, 0])
    assert additive < 0.03 < 0.3 * float(ridge(X, curves, FOLDS).values("mse")[0, 0])
    product = X[:, 0] * X[:, 1] + noise
    assert float(risk_models.gam(X, product, FOLDS, most=3).values("mse")[0, 0]) > 0.8 * product.var()
    surface = risk_models.gam(X[:, :2], product, FOLDS, most=2, surface=True)
    assert float(surface.values("mse")[0, 0]) < 0.05


def test_wide_features_enter_as_components_and_edges_hold() -> None:
    pytest.importorskip("pygam")
    wide = np.hstack([X[:, :1] * w for w in (1.0, -2.0, 0.5)] + [np.zeros((len(X), 1))])
    y = np.sin(2 * X[:, 0])
    model = risk_models.Additive(most=1, surface=False).fit(wide[:300], y[:300])
    assert np.mean((model.predict(wide[300:]) - y[300:]) ** 2) < 0.01
    edge = wide[[wide[:300, 0].argmax()]]
    np.testing.assert_allclose(model.predict(50 * edge), model.predict(edge))
    with pytest.raises(InputError, match="over two features, not 3"):
        risk_models.Additive(most=3, surface=True).fit(X, y)
    with pytest.raises(InputError, match="every feature is the same"):
        risk_models.Additive(most=3, surface=False).fit(np.ones((50, 3)), y[:50])
