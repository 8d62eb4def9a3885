"""What is kept of runs, as plain files, readable without torch."""
