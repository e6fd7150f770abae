"""Coordinates → embeddings as a transformer of scikit-learn, which takes a second to import."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from selm.embedding.coordinates import is_geographic, read_places
from selm.embedding.map_embedder import MapEmbedder, degrees
from selm.errors import InputError
from selm.maps.mercator import check_coordinates


class Embedder(TransformerMixin, MapEmbedder, BaseEstimator):  # type: ignore[misc]
    __doc__ = MapEmbedder.__doc__

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Open model and map, check that they belong together and that X holds coordinates; learns nothing."""
        if is_geographic(X):
            read_places(X)
        else:
            check_coordinates(*_columns(X))
        self.open()
        self.n_features_in_ = 2
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """(N, 2) latitudes and longitudes, a DataFrame with `lat` and `lon`, or a GeoDataFrame → (N, dim) float32."""
        if is_geographic(X):
            from selm.embedding.tables import embeddings_of

            return embeddings_of(X, self)[0]
        return self(*_columns(X))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """`names`, object (dim,)."""
        return np.array(self.names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}


def _columns(X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes of a DataFrame (columns `lat` and `lon`) or an (N, 2) array."""
    if isinstance(X, pd.DataFrame):
        absent = [name for name in ("lat", "lon") if name not in X.columns]
        if absent:
            there = ", ".join(map(str, X.columns))
            raise InputError(f"the table has no column {' and no column '.join(absent)} (has: {there})")
        return degrees(X["lat"], X["lon"])
    try:
        table = np.asarray(X, np.float64)
    except (TypeError, ValueError):
        raise InputError("coordinates must be numbers: latitudes and longitudes in degrees") from None
    if table.ndim != 2 or table.shape[1] != 2:
        raise InputError(f"coordinates must be an (N, 2) array of latitude and longitude, not of shape {table.shape}")
    return degrees(table[:, 0], table[:, 1])
