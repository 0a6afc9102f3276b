"""Small heads and a small model from the tests of robustness."""

from tests.robustness.conftest import tiny_data, tiny_model

__all__ = ["tiny_data", "tiny_model"]
