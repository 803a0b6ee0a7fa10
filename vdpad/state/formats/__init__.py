"""How a state stands in the world: each format's bytes, and NetState."""
