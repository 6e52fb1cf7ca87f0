def steer(c,s): return {}
