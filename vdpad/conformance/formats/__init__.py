"""A selftest's result in formats that others read: CI systems, test harnesses, browsers."""
