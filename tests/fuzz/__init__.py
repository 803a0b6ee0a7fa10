"""Coverage-guided fuzzing of what parses others' bytes, and of the ring under a hostile device.

Each module here but run.py and test_fuzz.py is a harness: a function `one` that takes any bytes and
asserts what must hold of them. Atheris (LibFuzzer) looks for bytes that reach code which no others
have reached; what it starts from is `corpus/HARNESS`, which is kept small. Where something does not
hold, the bytes are written to build/fuzz.
"""

HARNESSES = ("commands", "parts", "requests", "ring", "streams")
