"""The public functions, each in a file of its name: checks, the choice of a backend, and a call of autograd.py."""
