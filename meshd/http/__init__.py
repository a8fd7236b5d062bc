"""The HTTP kernel of all listeners: routes, requests and responses of handlers, and one mapping of errors."""
