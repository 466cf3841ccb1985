"""The attacks that plant targeted, backdoor and indiscriminate poison, one file each."""
