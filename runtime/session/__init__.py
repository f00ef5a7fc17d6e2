"""Using a trained model: a session reads and writes one stream of tokens, and keeps what its memories learned.

trained (runtime.trained) -> session -> tokens (sampling, decoding) and a state that is saved, loaded, forked
"""

from runtime.session.decoding import decoder
from runtime.session.sampling import Sampling
from runtime.session.session import Session, text_of
from runtime.session.surprise import Surprise
from runtime.trained import Trained, find

__all__ = ["Sampling", "Session", "Surprise", "Trained", "decoder", "find", "text_of"]
