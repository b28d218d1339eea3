"""What all our pages on HTTP share: one way to start, to answer and to look. Nothing is loaded from elsewhere."""
