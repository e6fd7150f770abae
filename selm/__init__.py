"""GPS coordinates to embeddings of the map around them: an open reproduction of GPS-SELM (ACML 2023).

The names below are imported when they are first used; everything but drawing works without Mapnik.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selm.errors import EXTRAS

if TYPE_CHECKING:
    from selm.embedding.embedder import Embedder
    from selm.embedding.map_embedder import embed
    from selm.embedding.search import Nearest
    from selm.encoder import MapEncoder
    from selm.errors import InputError
    from selm.location_encoder import LocationEncoder
    from selm.maps.atlas import Atlas
    from selm.maps.draw import draw_atlas, draw_image
    from selm.maps.sources import open_source
    from selm.pretrain import fit
    from selm.trial import try_embedding

_PUBLIC = {
    "Atlas": "selm.maps.atlas",
    "Embedder": "selm.embedding.embedder",
    "InputError": "selm.errors",
    "LocationEncoder": "selm.location_encoder",
    "MapEncoder": "selm.encoder",
    "Nearest": "selm.embedding.search",
    "draw_atlas": "selm.maps.draw",
    "embed": "selm.embedding.map_embedder",
    "fit": "selm.pretrain",
    "draw_image": "selm.maps.draw",
    "open_source": "selm.maps.sources",
    "try_embedding": "selm.trial",
}

__all__ = [
    "Atlas",
    "Embedder",
    "InputError",
    "LocationEncoder",
    "MapEncoder",
    "Nearest",
    "draw_atlas",
    "draw_image",
    "embed",
    "fit",
    "open_source",
    "try_embedding",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("selm")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'selm' has no attribute '{name}'")
    try:
        return getattr(import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise ImportError(f"selm.{name} needs {error.name}: pip install 'selm[{EXTRAS[error.name]}]'") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, "__version__"})
