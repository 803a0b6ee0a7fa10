"""Events: what a process of ours tells of itself; event.py says how."""
