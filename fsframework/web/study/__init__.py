"""`fsf study`: blind ratings of swaps by people."""
