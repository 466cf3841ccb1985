"""Backdoors: a trigger and the label it causes."""
