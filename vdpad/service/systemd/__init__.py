"""What we and systemd tell each other: notifications, the journal, descriptors."""
