"""Federated-learning schemes: the client's step, and what the server derives from it."""
