"""The API server is a fixture of this directory."""

from tests.chart.apiserver import apiserver

__all__ = ["apiserver"]
