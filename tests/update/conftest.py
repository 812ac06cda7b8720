"""Users with wheels of their own, and the conda channel."""

from tests.conda.conftest import channel as channel_folder
from tests.conda_image.conftest import channel
from tests.personal.conftest import user, wheels

__all__ = ["channel", "channel_folder", "user", "wheels"]
