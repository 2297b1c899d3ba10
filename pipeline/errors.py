"""The exceptions whose messages are written for the user."""


class ChorusError(Exception):
    """Bad input: the message names the thing and the remedy; commands print it alone and exit with status 2."""


class PassingError(ChorusError):
    """Nothing is wrong with the input: the same command may succeed later. Commands exit with status 75."""
