"""Tests of what reads and writes states of other formats."""
