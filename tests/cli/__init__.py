"""The commands vdpad and vdpactl, run as their users run them."""
