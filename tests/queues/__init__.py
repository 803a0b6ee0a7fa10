"""How a control queue is reached."""
