"""Runs the declared RayService on this machine: real Ray Serve, real HAProxy, real vLLM on the CPU, no Kubernetes."""
