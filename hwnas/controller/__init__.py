"""The controller: proposes, prices, forecasts, evaluates, archives; knows no searcher by name."""
