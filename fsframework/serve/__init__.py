"""`fsf serve`: swaps in the browser and over HTTP."""
