"""The commands: vdpad, the daemon, and vdpactl, its client for people and scripts."""
