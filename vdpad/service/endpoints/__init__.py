"""Where datagrams come in and replies go out. They know bytes and peers, and no request."""
