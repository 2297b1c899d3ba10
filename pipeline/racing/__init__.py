"""The budget and the race for it: who trains how long, and which families go on. Numbers in, numbers out."""
