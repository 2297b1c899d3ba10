"""The one exception whose message is written for the user."""


class ChorusError(Exception):
    """Bad input: the message names the thing and the remedy; commands print it alone and exit with status 2."""
