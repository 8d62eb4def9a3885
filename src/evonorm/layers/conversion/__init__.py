"""The converter: any layer of the table into any PyTorch model, every site accounted for.

tracing follows the data, kinds tells norms and activations, finding pairs them, policies decides, plan holds and
prints the decisions, applying and rewriting carry them out, parameters serves the optimizer.
"""

from evonorm.layers.conversion.parameters import parameter_groups
from evonorm.layers.conversion.plan import Plan, convert, plan
from evonorm.layers.conversion.policies import Site

__all__ = ["Plan", "Site", "convert", "parameter_groups", "plan"]
