"""The name of a method as used in configurations, commands and messages."""


def method_name(method: object) -> str:
    """Name of an objective, sampler or schedule: the file name of its class."""
    return type(method).__module__.rpartition(".")[2]
