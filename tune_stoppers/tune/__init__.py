"""Rules under Ray Tune: with backtest, the only folder that imports ray."""
