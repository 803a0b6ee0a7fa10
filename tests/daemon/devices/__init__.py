"""Devices that the daemon owns, and what outlives it of them."""
