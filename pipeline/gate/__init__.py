"""The gate: numbers of a candidate and of the champion in, a verdict for each rule out."""
