"""`python -m fsframework` is `fsf`."""

from fsframework.cli import main

main()
