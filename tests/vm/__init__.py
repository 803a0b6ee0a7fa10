"""The kernel's vhost-vdpa, in a virtual machine that one boot brings up for all tests."""
