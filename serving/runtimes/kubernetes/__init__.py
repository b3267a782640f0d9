"""Both servers on a Kubernetes cluster: rendering, deploying, rolling a model version, removing."""
