"""A vDPA device made to look to a guest as its source's did: what is wanted, fits, and is made."""
