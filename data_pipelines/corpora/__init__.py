"""Real corpora for the demonstrations, from pinned packages of PyPI."""
