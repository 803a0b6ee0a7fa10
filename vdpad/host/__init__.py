"""What the host's kernel says of its vDPA devices: over netlink, in sysfs and in /proc."""
