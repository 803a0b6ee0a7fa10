"""The table of all cases; a file has those of one kind."""
