"""What the daemon tells of itself; base.py says how."""
