"""Safety: refusal, over-refusal, regional values."""
