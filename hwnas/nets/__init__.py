"""Networks in torch: the weight-sharing supernet, static subnets, BN recalibration."""
