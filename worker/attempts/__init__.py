"""One shard from its claim to its end, however that comes."""
