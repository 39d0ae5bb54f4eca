"""What holds for all tests."""

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with
# them; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
