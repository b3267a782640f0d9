"""Locust, told by its command line alone: ~/.locust.conf, ./locust.conf and ./pyproject.toml are somebody's for other
tests, and a run time or a mode that stands there would be the generator's.

    python -m loadtest.generator.start_locust -f loadtest/generator/locustfile.py ...
"""

from __future__ import annotations


def main() -> None:
    """Be Locust. Its variables are left out by whoever starts this (see `models.child_environment`)."""
    from locust import argument_parser
    from locust.main import main as locust

    # It looks for those files where its parsers are made, and has no flag against that.
    argument_parser.get_empty_argument_parser.__defaults__ = (True, ())
    argument_parser.get_parser.__defaults__ = ((),)
    locust()


if __name__ == "__main__":
    main()
