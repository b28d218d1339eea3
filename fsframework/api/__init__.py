"""The functions of the public Python interface; `import fsframework as fsf` offers them by name."""
