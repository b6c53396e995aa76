"""From the composed parameters to executed notebooks and result files."""

import sys

# nbformat loads jsonschema, which builds a parser of internationalised addresses where JupyterLab has brought one
# along. That takes longer than the rest of the runner's imports together, and no notebook's schema asks for it.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
