"""Tests of devices provisioned to be like their source."""
