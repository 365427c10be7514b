"""The only room that sees both sides: in-process federation, phantom data, the comparison."""
