"""A method's module that ends the process that imports it."""

import os

os._exit(0)


def method(model, case, rng, *, ledger):
    return model
