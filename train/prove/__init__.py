"""`aisc prove`: the numbers of a configuration do not depend on how it is arranged, and are those of a plain loop."""
