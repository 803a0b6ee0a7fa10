"""Tests of the reader of QEMU's migration streams."""
