"""Generated examples may take their time."""

from tests.support import generation

generation.load()
