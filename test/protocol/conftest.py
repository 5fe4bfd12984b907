import sys
from pathlib import Path

# The model has a file of its own, next to the test that drives it.
sys.path.insert(0, str(Path(__file__).parent))
