"""What `fsf plugins new` copies: a component of each kind, short, that really works. Not registered as a plugin.

`Template` and `template` stand for the new plugin's name.
"""
