"""Fast operators, each with its form in plain torch."""
