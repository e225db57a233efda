"""What is measured. Each module has a `measure`, which fills the samples of a run."""
