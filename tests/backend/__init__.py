"""The back end."""
