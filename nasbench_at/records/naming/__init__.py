"""What configurations are called in words: networks, methods, data sets, and what tells runs apart.

Plain data and no torch, so that records can be named anywhere.
"""
