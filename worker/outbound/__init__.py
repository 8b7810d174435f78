"""What goes out to other people's servers: copies of what datasets refer to, and notices of ended jobs."""
