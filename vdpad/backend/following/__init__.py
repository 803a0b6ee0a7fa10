"""Following a VMM that keeps the control queue: its monitor tells the filter that its guest has."""
