"""The API over its socket: requests, senders, limits."""
