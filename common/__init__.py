"""What both sides of a federation must agree on; imports no other room."""
