"""What pictures' pixels have to do with an answer: rules with which captum and zennit go through our models."""
