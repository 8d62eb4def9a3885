"""One run: its configuration, its loop, its checkpoint, what is said of it."""
