"""Pages and pictures of what the analysis found."""
