"""`fsf serve`: swaps on a page and by HTTP."""
