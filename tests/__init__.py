"""Tests: the rooms as in vdpad/, and what they share in support/."""
