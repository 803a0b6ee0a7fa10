"""What `make install` lays out: it runs from there, and systemd finds nothing wrong with it."""
