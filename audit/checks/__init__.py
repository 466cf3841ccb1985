"""What holds whatever the poison: honesty, utility, membership."""
