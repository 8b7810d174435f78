"""Does anything accepted get lost? Small jobs on the whole service, while its parts are killed and its links fail."""
