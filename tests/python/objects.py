"""Objects are created, read, listed, changed in each way and deleted; models hold what the server answers."""

import datetime
import pathlib
import tempfile

from kubernetes import client, utils
from kubernetes.client.rest import ApiException

from story import NAMESPACE, connect, deployment, refused


def config_maps(core):
    created = core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one"), data={"a": "b"})
    )
    assert created.metadata.uid and created.metadata.resource_version
    assert isinstance(created.metadata.creation_timestamp, datetime.datetime)
    with refused(409, "AlreadyExists", 'configmaps \\"one\\" already exists'):
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "one"}})

    read = core.read_namespaced_config_map("one", NAMESPACE)
    assert read.data == {"a": "b"} and read.metadata.uid == created.metadata.uid
    with refused(404, "NotFound", 'configmaps \\"none\\" not found'):
        core.read_namespaced_config_map("none", NAMESPACE)

    read.data["c"] = "d"
    replaced = core.replace_namespaced_config_map("one", NAMESPACE, read)
    assert replaced.data == {"a": "b", "c": "d"}
    with refused(409, "Conflict", "the object has been modified"):
        core.replace_namespaced_config_map("one", NAMESPACE, read)

    binary = core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"generateName": "bytes-"}, "binaryData": {"raw": "AAEC/w=="}}
    )
    assert binary.metadata.name.startswith("bytes-") and binary.metadata.generate_name == "bytes-"
    tried = core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "dry"}}, dry_run="All"
    )
    assert tried.metadata.name == "dry"
    with refused(404):
        core.read_namespaced_config_map("dry", NAMESPACE)
    with refused(422, "Invalid", "metadata.name", "RFC 1123"):
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "Not_Good"}})


def lists(core):
    for number in range(5):
        core.create_namespaced_config_map(
            NAMESPACE, {"metadata": {"name": f"item-{number}", "labels": {"set": "items"}}}
        )
    page = core.list_namespaced_config_map(NAMESPACE, label_selector="set=items", limit=2)
    names = [item.metadata.name for item in page.items]
    assert len(names) == 2 and page.metadata._continue
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            NAMESPACE, label_selector="set=items", limit=2, _continue=page.metadata._continue
        )
        names += [item.metadata.name for item in page.items]
    assert names == [f"item-{number}" for number in range(5)], names

    everywhere = core.list_config_map_for_all_namespaces(field_selector="metadata.name=item-3")
    assert [item.metadata.name for item in everywhere.items] == ["item-3"]
    with refused(400, "BadRequest"):
        core.list_namespaced_config_map(NAMESPACE, label_selector="a in")
    with refused(400, "is not a known field selector"):
        core.list_namespaced_config_map(NAMESPACE, field_selector="data.a=b")

    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="set=items")
    assert not core.list_namespaced_config_map(NAMESPACE, label_selector="set=items").items


def deployments(apps):
    created = apps.create_namespaced_deployment(NAMESPACE, deployment("web"))
    assert created.spec.strategy.type == "RollingUpdate"
    assert created.spec.strategy.rolling_update.max_surge == "25%"
    assert created.spec.template.spec.containers[0].image_pull_policy == "Always"
    assert created.spec.template.spec.containers[0].resources.requests["cpu"] == "10m"

    body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "tty": True}]}}}}
    strategic = "application/strategic-merge-patch+json"
    patched = apps.patch_namespaced_deployment("web", NAMESPACE, body, _content_type=strategic)
    container = patched.spec.template.spec.containers[0]
    assert container.tty and container.image == "hello.wasm", container

    merge = {"metadata": {"labels": {"team": None, "tier": "front"}}}
    patched = apps.patch_namespaced_deployment(
        "web", NAMESPACE, merge, _content_type="application/merge-patch+json"
    )
    assert patched.metadata.labels == {"tier": "front"}

    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/spec/paused", "value": True},
        {"op": "add", "path": "/metadata/annotations", "value": {"note": "x"}},
    ]
    patched = apps.patch_namespaced_deployment("web", NAMESPACE, operations)
    assert patched.spec.paused and patched.metadata.annotations["note"] == "x"
    operations[0]["value"] = 7
    with refused(422, "the server rejected our request due to an error in our request"):
        apps.patch_namespaced_deployment("web", NAMESPACE, operations)

    wanted = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"applied": "yes"}},
        "spec": {"replicas": 1},
    }
    apply = {"_content_type": "application/apply-patch+yaml", "field_manager": "story"}
    with refused(409, "conflict with", ".spec.replicas"):
        apps.patch_namespaced_deployment("web", NAMESPACE, wanted, **apply)
    applied = apps.patch_namespaced_deployment("web", NAMESPACE, wanted, force=True, **apply)
    assert applied.spec.replicas == 1 and applied.metadata.labels["applied"] == "yes"
    managers = {entry.manager: entry for entry in applied.metadata.managed_fields}
    assert managers["story"].operation == "Apply", managers
    with refused(422, "fieldManager: Required value"):
        apps.patch_namespaced_deployment(
            "web", NAMESPACE, wanted, _content_type="application/apply-patch+yaml"
        )

    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    assert scale.spec.replicas == 1 and scale.status.selector == "app=web"
    scale.spec.replicas = 0
    # Controllers write to the object meanwhile.
    scale.metadata.resource_version = None
    apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
    scaled = apps.patch_namespaced_deployment_scale(
        "web", NAMESPACE, {"spec": {"replicas": 2}}, _content_type="application/merge-patch+json"
    )
    assert scaled.spec.replicas == 2
    status = apps.read_namespaced_deployment_status("web", NAMESPACE)
    assert status.metadata.name == "web"

    answer = apps.delete_namespaced_deployment(
        "web", NAMESPACE, propagation_policy="Foreground", grace_period_seconds=0
    )
    assert answer is not None
    with refused(404):
        apps.delete_namespaced_deployment("none", NAMESPACE)
    with refused(409, "Precondition failed: UID in precondition: other"):
        apps.create_namespaced_deployment(NAMESPACE, deployment("guarded"))
        apps.delete_namespaced_deployment(
            "guarded", NAMESPACE, body=client.V1DeleteOptions(preconditions={"uid": "other"})
        )


MANIFEST = """\
apiVersion: v1
kind: Namespace
metadata: {name: yard}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: yard}
  spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: tick, namespace: yard}
  spec:
    schedule: "0 0 1 1 *"
    suspend: true
    jobTemplate:
      spec:
        template:
          spec: {restartPolicy: Never, containers: [{name: main, image: tick.wasm}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: yard}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
"""


def files(api):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "all.yaml"
        path.write_text(MANIFEST)
        utils.create_from_yaml(api, str(path))
        try:
            utils.create_from_yaml(api, str(path))
        except utils.FailToCreateError as error:
            assert len(error.api_exceptions) == 4, error
            assert all(each.status == 409 for each in error.api_exceptions)
        else:
            raise AssertionError("created twice")
        utils.create_from_yaml(api, str(path), namespace="yard", apply=True)
    service = client.CoreV1Api(api).read_namespaced_service("web", "yard")
    assert service.spec.cluster_ip and service.spec.ports[0].target_port == "http"


def every_read(api):
    """The models check what the server answers: each list of what a new cluster has must fit."""
    core = client.CoreV1Api(api)
    assert client.VersionApi(api).get_code().git_version.startswith("v1.")
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    assert any(item.name == "pods" for item in core.get_api_resources().resources)
    for get in [
        core.list_namespace,
        core.list_node,
        core.list_service_for_all_namespaces,
        core.list_service_account_for_all_namespaces,
        core.list_secret_for_all_namespaces,
        core.list_event_for_all_namespaces,
        core.list_pod_for_all_namespaces,
        core.list_endpoints_for_all_namespaces,
        client.AppsV1Api(api).list_deployment_for_all_namespaces,
        client.RbacAuthorizationV1Api(api).list_cluster_role,
        client.RbacAuthorizationV1Api(api).list_cluster_role_binding,
        client.SchedulingV1Api(api).list_priority_class,
        client.CoordinationV1Api(api).list_lease_for_all_namespaces,
        client.DiscoveryV1Api(api).list_endpoint_slice_for_all_namespaces,
        client.FlowcontrolApiserverV1Api(api).list_flow_schema,
        client.FlowcontrolApiserverV1Api(api).list_priority_level_configuration,
        client.NetworkingV1Api(api).list_service_cidr,
        client.ApiregistrationV1Api(api).list_api_service,
        client.ApiextensionsV1Api(api).list_custom_resource_definition,
    ]:
        try:
            assert get().items is not None
        except (ApiException, ValueError) as error:
            raise AssertionError(f"{get.__name__}: {error}") from error


def main():
    connect()
    api = client.ApiClient()
    config_maps(client.CoreV1Api(api))
    lists(client.CoreV1Api(api))
    deployments(client.AppsV1Api(api))
    files(api)
    every_read(api)


main()
