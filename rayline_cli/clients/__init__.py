"""One client for each API that the command line calls: Kubernetes, Ray Serve's REST API, OpenAI's, and Google's billing catalog."""
