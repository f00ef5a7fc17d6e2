"""`python -m nlc` is the command `nlc`."""

from nlc.cli import entry

if __name__ == "__main__":
    entry()
