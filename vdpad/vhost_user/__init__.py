"""The vhost-user protocol from the back end's side; it knows no device."""
