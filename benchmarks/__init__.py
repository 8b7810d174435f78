"""What proves the claims: one file per section, run by `make bench`, results kept as data and shown in README.md."""
