"""What the tests share: states, commands, devices, and a clock that nobody waits for."""
