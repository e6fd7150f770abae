"""Downstream probes: how good an embedding is for a task it was not trained on."""
