"""Attribution: ours and the packages of others against retraining, on the same heads and the same loss."""
