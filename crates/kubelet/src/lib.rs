//! Brings a node's pods to what the API wants: images, volumes, containers, probes, status, logs.
