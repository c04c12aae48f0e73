"""Planning: what a data set holds, and the bundle that fits it."""
