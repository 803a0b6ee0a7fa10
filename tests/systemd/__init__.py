"""The service under systemd: its units here, and a virtual machine with systemd as PID 1."""
