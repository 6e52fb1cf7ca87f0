"""Networks in torch: the weight-sharing supernet, static subnets cut from it, BN recalibration."""
