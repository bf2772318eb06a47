"""Ours is found before a package of the same name that some distributions install by mistake."""
