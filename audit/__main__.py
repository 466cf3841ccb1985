"""`python -m poison_audit`: the same as `poison-audit`."""

from poison_audit.cli import main

if __name__ == "__main__":
    main()
