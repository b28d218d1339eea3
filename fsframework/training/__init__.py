"""Training of a recipe's stages."""
