"""The service: sockets, the API, and the operations behind it."""
