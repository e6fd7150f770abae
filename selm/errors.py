"""The one exception that users meet: bad input, said in one line."""


class InputError(ValueError):
    """Input that cannot be used.

    Its message is one line that names the file, row or field at fault and, where there is one, the remedy.
    The command line prints it after ``selm: `` and exits with status 2; the Python API raises it.
    """
