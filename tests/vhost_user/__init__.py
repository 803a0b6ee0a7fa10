"""The vhost-user protocol, from both sides: ours, and a front end of the tests' own."""
