"""The page: reads records, imports no torch."""
