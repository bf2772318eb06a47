"""What a run is: schema, presets, composition, the run folder. Standard library, omegaconf and hydra only."""
