"""A vhost-vdpa device of the kernel's, opened and kept: its node, its memory, its bring-up."""
