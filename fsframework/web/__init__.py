"""What pages on HTTP share: server, headers, style."""
