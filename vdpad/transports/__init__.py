"""The ways by which a client asks a vdpad on its host: datagrams, and a connection."""
