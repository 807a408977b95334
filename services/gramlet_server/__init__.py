"""gramlet's services. Start reading at `__main__`, then the `service.py` of the service that interests you."""

__version__ = "0.1.0"
