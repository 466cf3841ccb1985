"""Why unlearning fails on this model: explanations, which never change a verdict."""
