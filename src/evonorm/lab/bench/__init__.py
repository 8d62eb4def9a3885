"""`evonorm bench`: how fast the layers are, beside their rivals and the speed of memory, in one process."""
