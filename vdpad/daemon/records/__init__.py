"""Records: what operations came to, for the next daemon."""
