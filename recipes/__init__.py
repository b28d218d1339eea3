"""The recipes that come with the framework."""
