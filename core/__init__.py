"""The science: channel sets, criteria, decompositions, surgery, measurement, fronts. No Ray, MLflow, Optuna, plots."""
