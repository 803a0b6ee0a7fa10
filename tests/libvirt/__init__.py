"""Two hosts with libvirtd, between which a guest moves live, past the hooks of docs/recipes."""
