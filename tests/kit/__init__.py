"""The lender's kit: VMMs in other languages, built and run against a daemon."""
