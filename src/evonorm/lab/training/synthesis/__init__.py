"""Image synthesis: two networks against each other, samples, and how good these are by the features of a third."""
