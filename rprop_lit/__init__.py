"""Rprop, the book that runs: resilient backpropagation, exact to the bit,
on NumPy and CuPy arrays and torch tensors."""
__version__ = "0.1.0"

from .optim import Parameter, Rprop
from .rule import State, init
from .solver import minimize, scipy_method
from .variants import VARIANTS, update
from .inside.config import config
from .inside.walk import rprop

__all__ = ['Rprop', 'Parameter', 'minimize', 'rprop', 'scipy_method', 'VARIANTS', 'State', 'init', 'update',
           'config']
