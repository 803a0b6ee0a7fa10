"""Fixtures: vdpad installed."""

from tests.install.install import installed as installed
