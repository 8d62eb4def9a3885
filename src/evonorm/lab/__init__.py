"""The lab: experiments with the layers, recorded as plain files."""
