"""The command line, `python -m vae_fast`: info, train and evaluate. main.py is the way in, one file a job."""
