"""Records, and what a daemon takes of them."""
