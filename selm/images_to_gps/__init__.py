"""Image2GPS: a photograph's coordinates in an area of campus size, by regression and by retrieval (Yao et al.)."""
