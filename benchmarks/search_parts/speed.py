def speed(c,s): return {}
