"""A vhost-vdpa device, against a kernel of the tests' own; against Linux it is in tests/vm."""
