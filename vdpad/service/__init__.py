"""What every process of ours needs: endpoints, the envelope, events, systemd, the log."""
