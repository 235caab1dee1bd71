"""Pure mathematics: tensors in, tensors out.  Knows no model, device, config, log or network."""
