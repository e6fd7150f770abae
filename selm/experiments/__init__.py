"""What each table and figure needs, computed where it is missing and reused where it is there."""

from selm.experiments.chapters import CHAPTERS, chapter
from selm.experiments.figures import FIGURES, PROVENANCE, figure
from selm.experiments.grid import Cell, cell_files, cells, claims, class_counts, finished, run_cell, table1, table2
from selm.experiments.paper_claims import claim_verdicts, read_claims
from selm.experiments.publish import publish, publish_encoders
from selm.experiments.runs import complete, curves, pretrainings, runs
from selm.experiments.tables import table

__all__ = [
    "CHAPTERS",
    "FIGURES",
    "PROVENANCE",
    "Cell",
    "cell_files",
    "cells",
    "chapter",
    "claim_verdicts",
    "claims",
    "class_counts",
    "complete",
    "curves",
    "figure",
    "finished",
    "pretrainings",
    "publish",
    "publish_encoders",
    "read_claims",
    "run_cell",
    "runs",
    "table",
    "table1",
    "table2",
]  # fmt: skip
