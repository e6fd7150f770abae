"""How each pretrained row is trained: the changes that were tried, and the one that was chosen for each.

The choice is made by `reproduction.experiments.tuning`, in the validation regions alone; a test holds it against the
published tries. The rows of GPS-SELM with fewer losses or without prices are trained as full GPS-SELM is: an ablation
changes one thing. Those of several zooms are trained as they are, without a change: with GPS-SELM's the wide row was
worse in the validation regions (mean squared error 0.372 of 800,000 images and 0.336 of 200,000, against the 0.309 of
the 800,000 that it is published with), and with `CODES` it was no better (the page "more context" has the numbers).
"""

from __future__ import annotations

from reproduction.settings import AS_IT_IS, Change
from selm.errors import unknown

_SHARP = (("teacher_temp", (0.04, 0.04)),)
_NO_LOCAL = (("n_local", 0),)
_SHORT = (("queue", 512),)
_STUDENT = (
    AS_IT_IS,
    Change("teacher temperature 0.04", _SHARP),
    Change("teacher temperature 0.04, no local crops", _SHARP, _NO_LOCAL),
    Change("teacher temperature 0.04, no local crops, learning rate × 2", _SHARP, _NO_LOCAL, lr=2.0),
)
TRIES: dict[str, tuple[Change, ...]] = {
    "dino": _STUDENT,
    "gps_selm": _STUDENT,
    "moco_v2": (
        AS_IT_IS,
        Change("queue of 512", settings=_SHORT),
        Change("queue of 512, learning rate × 2", settings=(*_SHORT, ("lr", 0.06))),
        Change("queue of 512, temperature 0.1", settings=(*_SHORT, ("temperature", 0.1))),
    ),
    "moco_geo_tp": (
        AS_IT_IS,
        Change("queue of 512", settings=_SHORT),
        Change("queue of 512, learning rate × ¼", settings=(*_SHORT, ("lr", 0.0075))),
        Change("queue of 512, temperature 0.2", settings=(*_SHORT, ("temperature", 0.2))),
    ),
    "mugs": (
        AS_IT_IS,
        Change("no local crops", views=_NO_LOCAL),
        Change("no local crops, queue of 512", views=_NO_LOCAL, settings=_SHORT),
        Change("no local crops, queue of 512, learning rate × 2", views=_NO_LOCAL, settings=(*_SHORT, ("lr", 1.6e-3))),
    ),
    "tile2vec": (
        AS_IT_IS,
        Change("neighbours within half an image", settings=(("neighbourhood", 0.5),)),
        Change("margin 1", settings=(("margin", 1.0),)),
        Change("learning rate × 3", settings=(("lr", 3e-3),)),
    ),
}  # fmt: skip
# Rows that are trained as another one is.
LIKE = dict.fromkeys(("gps_selm_geo", "gps_selm_geo_rec", "gps_selm_no_price", "geo_only"), "gps_selm")
UNTUNED = ("multi_zoom", "multi_zoom_wide")  # rows that have no tries here


# The chosen ones, by name.
CHOSEN = {
    "dino": "teacher temperature 0.04, no local crops, learning rate × 2",
    "gps_selm": "teacher temperature 0.04, no local crops",
    "moco_v2": "queue of 512",
    "moco_geo_tp": AS_IT_IS.name,
    "mugs": "no local crops, queue of 512",
    "tile2vec": "neighbours within half an image",
}


def tries(method: str) -> tuple[Change, ...]:
    """The tries of a row, those of the row that it is trained like; raises InputError for one that is not tuned."""
    name = LIKE.get(method, method)
    if name not in TRIES:
        raise unknown("tuned row", method, (*TRIES, *LIKE))
    return TRIES[name]


def chosen(method: str) -> Change:
    """How a tuned row is trained in the profiles that take the recipes."""
    (change,) = (one for one in tries(method) if one.name == CHOSEN[LIKE.get(method, method)])
    return change


TUNED = tuple((method, chosen(method)) for method in (*TRIES, *LIKE) if chosen(method) != AS_IT_IS)

# Tried for "multi_zoom_wide" and set aside: `profile.with_recipe("multi_zoom_wide", CODES)` trains it so.
CODES = Change("16 codes in place of RGB, 3 × 3 stem", encoder=(("codes", 16), ("stem", 3)))
