"""What the rows of tables and figures are called. Only words, so that results are read without torch."""

from __future__ import annotations

from selm.errors import unknown

# in a setting of the chapter on more context
ONE_ORIENTATION = ", one orientation"
LAST_STAGE = ", last stage"
# at the end of a representation's name in Figure 5
WHITENED = "_whitened"
REGIONS = "regions"  # the split of a probe that learns from other regions
HEAD = "+head"  # of features beside which stands what other regions' labels teach about them
# in a sweep: the method before anything is tried
AS_IT_IS = "as it is"

# encoders of coordinates that others have published, with their weights
PEERS = ("geoclip",)
RECOMMENDED = "recommended"  # the wide encoder's features at all zooms and stages, and the colours beside them
COMPACT = "compact"  # what `selm embed` gives where nobody says otherwise: all that, reduced

TITLES = {
    # as the paper prints them
    "random_init": "Random Init",
    "raw_gps": "raw GPS",
    "mugs": "MUGS",
    "moco_v2": "MoCo-V2",
    "dino": "DINO",
    "moco_geo_tp": "MoCo-V2+Geo+TP",
    "tile2vec": "Tile2Vec",
    "gps_selm_geo": "GPS-SELM (geo)",
    "gps_selm_geo_rec": "GPS-SELM (geo+rec)",
    "gps_selm": "GPS-SELM (geo+rec+int)",
    # controls, and what lies beyond the paper: ours
    "geo_only": "geo losses alone",
    "gps_selm_no_price": "GPS-SELM without land price",
    "multi_zoom": "multi-zoom GPS-SELM (geo)",
    "multi_zoom_wide": "wide multi-zoom GPS-SELM (geo)",
    "raw_gps_standardised": "raw GPS, standardised",
    RECOMMENDED: "recommended embedding, all its numbers",
    COMPACT: "recommended embedding, reduced",
    # published by others
    "geoclip": "GeoCLIP (its own weights)",
    # without an embedding. "trees": gradient boosting for prices, extremely randomised trees for classes
    "prior": "mean predictor",
    "knn_coordinates": "k-NN (5) on coordinates",
    "trees_coordinates": "trees on coordinates",
    "colours": "colours, kernel ridge",
    "histogram": "trees on colours",
    "histogram_17": "trees on colours, zoom 17",
    "histogram_16": "trees on colours, zoom 16",
    "histogram_15": "trees on colours, zoom 15",
    "histogram_14": "trees on colours, zoom 14",
    "histogram_17_14": "trees on colours, zooms 17-14",
    "histogram_17+coordinates": "trees on colours, zoom 17, and coordinates",
    "grid": "feature tables, distilled: no map",
    "histogram_17_14+coordinates": "trees on colours, zooms 17-14, and coordinates",
}


def km_of(split: str) -> float:
    """The buffer that a split names ("blocks, 15 km": 15); 0 for the profile's own ("blocks")."""
    return float(split.removeprefix("blocks, ").removesuffix(" km")) if "," in split else 0.0


def title_of(method: str) -> str:
    """What the row `method` is called; InputError with the nearest name if there is none.

    A method's name with "+coordinates", "+colours" or `HEAD` at its end stands for its features together with the
    coordinates, with the colours, or with a head of other regions; with "_x4", for its pretraining on four times the
    places and images; with "_whitened", for its
    features whitened on a gallery.
    """
    if method in TITLES:
        return TITLES[method]
    if method.endswith(WHITENED):
        return f"whitened {title_of(method.removesuffix(WHITENED))}"
    for end, beside in (("+coordinates", "coordinates"), ("+colours", "colours"), (HEAD, "a head of other regions")):
        if method.endswith(end):
            return f"{title_of(method.removesuffix(end))} and {beside}"
    base, longer, times = method.rpartition("_x")
    if longer and times.isdigit():
        return f"{title_of(base)}, {times} × training"
    raise unknown("method", method, TITLES)


def row_title(method: str, metric: str) -> str:
    """What a row is called in a table of this metric."""
    return "most frequent class" if method == "prior" and metric != "mse" else title_of(method)
