"""What is in config/monitoring, judged by promtool and held against the metrics there are."""
