"""What every process of ours needs, judged by peers that know its page only."""
