"""The vhost-vdpa devices that this daemon owns."""
