"""Custom resources by CustomObjectsApi and by the dynamic client."""

from kubernetes import client, dynamic
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, UnprocessibleEntityError

from story import NAMESPACE, connect, refused

GROUP, VERSION, PLURAL = "harbour.example.com", "v1", "boats"
WHERE = {"group": GROUP, "version": VERSION, "namespace": NAMESPACE, "plural": PLURAL}
API_VERSION = f"{GROUP}/{VERSION}"


def definition():
    spec = client.V1JSONSchemaProps(
        type="object",
        required=["oars"],
        properties={
            "oars": client.V1JSONSchemaProps(type="integer", minimum=1, maximum=8),
            "colour": client.V1JSONSchemaProps(type="string", default="brown"),
        },
    )
    status = client.V1JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)
    schema = client.V1JSONSchemaProps(type="object", properties={"spec": spec, "status": status})
    version = client.V1CustomResourceDefinitionVersion(
        name=VERSION,
        served=True,
        storage=True,
        schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
        subresources=client.V1CustomResourceSubresources(
            status={},
            scale=client.V1CustomResourceSubresourceScale(
                spec_replicas_path=".spec.oars", status_replicas_path=".status.oars"
            ),
        ),
    )
    names = client.V1CustomResourceDefinitionNames(plural=PLURAL, singular="boat", kind="Boat")
    return client.V1CustomResourceDefinition(
        api_version="apiextensions.k8s.io/v1",
        kind="CustomResourceDefinition",
        metadata=client.V1ObjectMeta(name=f"{PLURAL}.{GROUP}"),
        spec=client.V1CustomResourceDefinitionSpec(
            group=GROUP, names=names, scope="Namespaced", versions=[version]
        ),
    )


def boat(name, **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "Boat",
        "metadata": {"name": name, "labels": {"kept": "here"}},
        "spec": spec,
    }


def define(api):
    extensions = client.ApiextensionsV1Api(api)
    extensions.create_custom_resource_definition(definition())
    stream = dynamic.DynamicClient(api).resources.get(
        api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
    )
    for event in stream.watch(name=f"{PLURAL}.{GROUP}", timeout=30):
        conditions = (event["raw_object"].get("status") or {}).get("conditions") or []
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return
    raise AssertionError("never established")


def custom_objects(api):
    custom = client.CustomObjectsApi(api)
    created = custom.create_namespaced_custom_object(**WHERE, body=boat("gull", oars=2))
    assert created["spec"] == {"oars": 2, "colour": "brown"}
    with refused(422, "spec.oars in body should be less than or equal to 8"):
        custom.create_namespaced_custom_object(**WHERE, body=boat("ark", oars=99))

    read = custom.get_namespaced_custom_object(**WHERE, name="gull")
    read["spec"]["oars"] = 4
    replaced = custom.replace_namespaced_custom_object(**WHERE, name="gull", body=read)
    assert replaced["metadata"]["generation"] == 2
    patch = {"spec": {"colour": "green"}}
    patched = custom.patch_namespaced_custom_object(
        **WHERE, name="gull", body=patch, _content_type="application/merge-patch+json"
    )
    assert patched["spec"] == {"oars": 4, "colour": "green"}
    with refused(415, "UnsupportedMediaType"):
        custom.patch_namespaced_custom_object(
            **WHERE,
            name="gull",
            body=patch,
            _content_type="application/strategic-merge-patch+json",
        )
    status = {"status": {"phase": "afloat", "oars": 4}}
    patched = custom.patch_namespaced_custom_object_status(
        **WHERE, name="gull", body=status, _content_type="application/merge-patch+json"
    )
    assert patched["status"]["phase"] == "afloat"
    scale = custom.get_namespaced_custom_object_scale(**WHERE, name="gull")
    assert scale["spec"]["replicas"] == 4 and scale["status"]["replicas"] == 4, scale

    listed = custom.list_namespaced_custom_object(**WHERE, label_selector="kept=here")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["gull"]
    everywhere = custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)
    assert everywhere["kind"] == "BoatList" and len(everywhere["items"]) == 1
    answer = custom.delete_namespaced_custom_object(**WHERE, name="gull")
    assert answer["status"] == "Success"
    with refused(404, "NotFound", 'boats.harbour.example.com \\"gull\\" not found'):
        custom.get_namespaced_custom_object(**WHERE, name="gull")


def dynamically(api):
    found = dynamic.DynamicClient(api)
    boats = found.resources.get(api_version=API_VERSION, kind="Boat")
    assert boats.namespaced and boats.group == GROUP
    start = boats.get(namespace=NAMESPACE).metadata.resourceVersion
    boats.create(body=boat("tern", oars=2), namespace=NAMESPACE)
    try:
        boats.create(body=boat("tern", oars=2), namespace=NAMESPACE)
        raise AssertionError("created twice")
    except ConflictError as error:
        assert error.summary() == 'boats.harbour.example.com "tern" already exists', error
    try:
        boats.create(body=boat("raft"), namespace=NAMESPACE)
        raise AssertionError("a boat without oars")
    except UnprocessibleEntityError as error:
        assert "spec.oars: Required value" in str(error.body), error.body

    applied = boats.server_side_apply(
        body=boat("tern", oars=3),
        namespace=NAMESPACE,
        field_manager="story",
        force_conflicts=True,
    )
    assert applied.spec.oars == 3
    boats.patch(
        body={"metadata": {"name": "tern"}, "spec": {"oars": 5}},
        namespace=NAMESPACE,
        content_type="application/merge-patch+json",
    )
    boats.status.patch(
        body={"status": {"phase": "afloat"}},
        name="tern",
        namespace=NAMESPACE,
        content_type="application/merge-patch+json",
    )
    kept = boats.get(name="tern", namespace=NAMESPACE)
    assert kept.spec.oars == 5 and kept.status.phase == "afloat"
    boats.delete(name="tern", namespace=NAMESPACE)
    try:
        boats.get(name="tern", namespace=NAMESPACE)
        raise AssertionError("still there")
    except NotFoundError:
        pass
    seen = []
    for event in boats.watch(namespace=NAMESPACE, resource_version=start, timeout=30):
        seen.append((event["type"], event["object"].spec.oars))
        if event["type"] == "DELETED":
            break
    expected = [("ADDED", 2), ("MODIFIED", 3), ("MODIFIED", 5), ("MODIFIED", 5), ("DELETED", 5)]
    assert seen == expected, seen

    # The same client speaks of every built-in kind.
    nodes = found.resources.get(api_version="v1", kind="Node")
    assert [node.metadata.name for node in nodes.get().items] == ["node-0"]
    services = found.resources.get(api_version="v1", kind="Service")
    assert services.get(name="kubernetes", namespace="default").spec.type == "ClusterIP"
    assert {each.kind for each in found.resources.search(group="apps")} >= {"Deployment"}


def main():
    connect()
    api = client.ApiClient()
    define(api)
    custom_objects(api)
    dynamically(api)


main()
