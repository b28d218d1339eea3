"""The source of `fsf plugins new`: a short, working component of each kind. It is not registered as a plugin.

`Template` and `template` are placeholders for the new plugin's name.
"""
