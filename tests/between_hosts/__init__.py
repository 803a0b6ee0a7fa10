"""A source host and a destination host, as two network namespaces with a bad network between."""
