"""The service under systemd, in a virtual machine with systemd as PID 1."""
