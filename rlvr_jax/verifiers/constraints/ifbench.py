CHECKS = {}
LEFT_OUT = {}
