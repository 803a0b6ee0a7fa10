"""The back end's state, on its way."""
