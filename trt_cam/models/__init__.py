"""Networks: the Token Refinement Transformer, its heads, the hybrid backbone, and their files."""
