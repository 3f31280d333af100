"""The name of a method, as configurations, commands and messages have it."""


def method_name(method: object) -> str:
    """Of an objective, sampler or schedule: that of the file of its class."""
    return type(method).__module__.rpartition(".")[2]
