"""`fsf serve`: swap faces on a web page and over HTTP."""
