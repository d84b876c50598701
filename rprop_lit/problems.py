"""provisional"""
__all__ = ['Problem', 'bowl', 'rosenbrock', 'plateau', 'saddle', 'noisy', 'ZOO', 'slope']
from typing import Callable, NamedTuple
import numpy as np
class Problem(NamedTuple):
    name: str
    fun: Callable      # fun(w) -> (error, gradient)
    start: np.ndarray
    best: float
