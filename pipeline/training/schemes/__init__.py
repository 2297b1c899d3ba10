"""How the members of one family depend on each other: what a later one trains on, and what it is made of."""
