"""Shares and turns."""
