"""What the Python stories share. Each story is a program: it says what failed by ending with an exception."""

import contextlib
import os

from kubernetes import client, config
from kubernetes.client.rest import ApiException

NAMESPACE = "default"


def connect():
    """Loads the cluster's kubeconfig, as most scripts begin."""
    config.load_kube_config(config_file=os.environ["KUBECONFIG"])


@contextlib.contextmanager
def refused(status, *texts):
    """The request inside is refused with this code, and the answer says each of the texts."""
    try:
        yield
    except ApiException as error:
        said = f"{error.status} {error.reason} {error.body}"
        assert error.status == status, said
        for text in texts:
            assert text in said, f"no {text!r} in {said}"
    else:
        raise AssertionError(f"not refused with {status}")


def deployment(name, replicas=0, image="hello.wasm"):
    """A Deployment as people build it from the client's models."""
    labels = {"app": name}
    container = client.V1Container(
        name="main",
        image=image,
        env=[client.V1EnvVar(name="A", value="one")],
        ports=[client.V1ContainerPort(container_port=8080, name="http")],
        resources=client.V1ResourceRequirements(
            requests={"cpu": "10m", "memory": "16Mi"}, limits={"memory": "64Mi"}
        ),
    )
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=name, labels={"team": "blue"}),
        spec=client.V1DeploymentSpec(
            replicas=replicas,
            selector=client.V1LabelSelector(match_labels=labels),
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(labels=labels),
                spec=client.V1PodSpec(containers=[container]),
            ),
        ),
    )
