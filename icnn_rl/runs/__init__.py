"""What a run is made of, whatever it trains: its folder, tables, progress, tracking, signals."""
