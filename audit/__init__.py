"""poison-audit: does a deployed model still carry the poison it was trained on?"""

__version__ = "0.1.0"
