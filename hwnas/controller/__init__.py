"""The controller: proposes, prices, predicts, evaluates, archives; knows no searcher by name."""
