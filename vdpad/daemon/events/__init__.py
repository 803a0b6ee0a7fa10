"""What the daemon tells of itself; service/events/event.py says how."""
