"""From scores of every pair to a ranking by suspicion, and from that to a list of pairs with a stated error rate."""
