"""Many runs: what a job is, where it runs, who starts and stops it."""
