"""The back end's control socket."""
