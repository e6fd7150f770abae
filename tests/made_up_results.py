"""Made-up rows of Table 1, for tests of results and of their tables."""

from __future__ import annotations

import pandas as pd


def results(
    profile: str = "japan-cpu", *, stand_in: bool = False, offset: float = 0.0, **fixed: object
) -> pd.DataFrame:
    """Ten trials of Table 1's DINO and GPS-SELM, frozen, at epochs 1 and 50, and a row without epochs."""
    rows = []
    for method, level in (("dino", 0.6), ("gps_selm", 0.3), ("knn_coordinates", 0.8)):
        practitioner = method == "knn_coordinates"
        for epochs in (0,) if practitioner else (1, 50):
            for trial in range(10):
                rows.append(
                    {
                        "experiment": "table1", "target": "l01", "split": "random", "method": method,
                        "setting": "practitioner" if practitioner else "frozen", "epochs": epochs, "metric": "mse",
                        "trial": trial, "value": level + offset - 0.004 * epochs + 0.01 * (trial - 4.5), "n_train": 90,
                        "n_test": 100, "seed": 0, "profile": profile, "run_id": "abc", "stand_in": stand_in,
                        "commit": "1234567", "data": "feed", "device": "cpu", "date": "2026-01-01", **fixed,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
