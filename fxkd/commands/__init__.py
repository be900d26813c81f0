"""The commands of ``fxkd``, one a file: ``add`` says what it takes, ``run`` does it and gives the exit status."""
