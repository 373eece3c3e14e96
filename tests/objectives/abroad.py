"""Training functions that look at where they are: what travels to a worker on another machine, and what does not."""

import os


def shows(run):
    print("seen:", [name for name in os.environ if "TOKEN" in name])
    return 0.0


def borrows(run):
    from borrowed import VALUE

    return VALUE
