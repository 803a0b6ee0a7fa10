"""What is moved: a virtio-net device's settings as its guest made them."""
