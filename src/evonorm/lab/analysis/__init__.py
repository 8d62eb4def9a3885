"""What records say, in numbers and words; no HTML, no torch."""
