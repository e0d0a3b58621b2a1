"""What a run is told: the parameters, and the texts that are rendered from them."""
