"""The converter: any layer of the table into any PyTorch model, every site accounted for.

tracing follows the data by a tracer, with shapes beside it, kinds tells norms and activations, finding pairs them,
choosing and policies decide, plan holds and prints the decisions, applying and rewriting carry them out, parameters
serves the optimizer. timms, beside all that, puts our layers in the place of timm's own.
"""

from evonorm.layers.conversion.parameters import parameter_groups
from evonorm.layers.conversion.plan import ConversionWarning, Plan, convert, plan
from evonorm.layers.conversion.policies import Site
from evonorm.layers.conversion.timms import from_timm

__all__ = ["ConversionWarning", "Plan", "Site", "convert", "from_timm", "parameter_groups", "plan"]
