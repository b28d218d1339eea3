"""Web pages and HTTP interfaces: `fsf serve`, `fsf study`, and their common server."""
