"""Detection: how well each column, and each method of others, finds wrong pairs."""
