"""Clients in other languages, by other people, in other namespaces, over a stream."""
