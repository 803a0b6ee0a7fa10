"""Fixtures: vdpad installed, and packages of it."""

from tests.install.install import installed as installed
from tests.install.packages import packages as packages
