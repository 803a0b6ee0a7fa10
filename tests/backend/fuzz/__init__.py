"""Guests whose rings make no sense, against the real back end on its software device."""
