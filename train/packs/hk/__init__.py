"""Hong Kong: Cantonese, script, code-switching, HKMMLU."""
