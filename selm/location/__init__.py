"""Location encoders: coordinates → embedding by a network alone, without a map (SatCLIP, GeoCLIP and their kin)."""

from selm.location.encoder import LocationConfig, LocationEncoder
from selm.location.frame import Frame
from selm.location.method import LocationMethod, PairBatch, PairedPlaces

__all__ = ["Frame", "LocationConfig", "LocationEncoder", "LocationMethod", "PairBatch", "PairedPlaces"]
