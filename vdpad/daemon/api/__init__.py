"""The API: from a request's bytes to the reply's."""
