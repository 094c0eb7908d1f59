"""The group of a row that has none.

Such rows are strangers to one another: no metric within groups sees them, and the bootstrap draws each by itself.
"""

from typing import Final

import numpy as np

NO_GROUP: Final = int(np.iinfo(np.int64).min)
