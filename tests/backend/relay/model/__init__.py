"""A model of all who touch a receive queue while its used ring is relayed."""
