"""`make demo`: the service at work on pictures of digits, some of whose captions are wrong on purpose."""
