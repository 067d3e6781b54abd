"""Forms of the operators for other libraries, one module each; a module imports its library, this package none."""
