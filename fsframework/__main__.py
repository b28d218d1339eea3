"""`python -m fsframework` is `fsf`."""

from fsframework.cli.main import main

main()
