"""The recipes of docs/recipes, each run as its caller would, against a daemon."""
