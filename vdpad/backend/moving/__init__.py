"""A guest that moves: its state out of the device and into another, tried before it is believed."""
