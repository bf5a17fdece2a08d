"""What every computation stands on: devices, seeds, ranks, files written whole."""
