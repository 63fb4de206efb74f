use super::*;
use crate::kinds;

fn field(kind: (&str, &str, &str), path: &str) -> Field {
    let schema = Schema::get();
    let id =
        schema.kind_type(kind.0, kind.1, kind.2).unwrap_or_else(|| panic!("no type for {kind:?}"));
    schema.field_at(id, path).unwrap_or_else(|| panic!("no field {path} in {kind:?}")).clone()
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const SERVICE: (&str, &str, &str) = ("", "v1", "Service");

#[test]
fn every_kind_of_the_table_has_a_type_with_metadata() {
    let schema = Schema::get();
    for kind in kinds::all() {
        let id = schema.of(kind).unwrap_or_else(|| panic!("no type for {kind:?}"));
        let metadata = schema
            .field_at(id, "metadata")
            .unwrap_or_else(|| panic!("no metadata in {}", kind.kind));
        assert!(schema.type_(metadata.type_id).name.ends_with(".ObjectMeta"), "{}", kind.kind);
        for subresource in kind.subresources {
            if subresource.kind.ends_with("Options") {
                continue;
            }
            let found = schema.kind_type(subresource.group, subresource.version, subresource.kind);
            assert!(found.is_some(), "no type for {subresource:?}");
        }
    }
}

#[test]
fn every_stable_kind_of_the_served_groups_is_in_the_table() {
    let served: Vec<_> =
        kinds::group_versions().iter().map(|one| (one.group, one.version)).collect();
    let elsewhere = [
        "Scale",
        "Eviction",
        "TokenRequest",
        "Status",
        "APIGroup",
        "APIGroupList",
        "APIResourceList",
        "APIVersions",
    ];
    for (group, version, kind) in Schema::get().by_kind.keys() {
        if served.contains(&(*group, *version)) && !elsewhere.contains(kind) {
            assert!(
                kinds::by_kind(group, version, kind).is_some(),
                "{group}/{version} {kind} is not served"
            );
        }
    }
}

#[test]
fn lists_know_their_keys() {
    let containers = field(POD, "spec.containers");
    assert_eq!(
        (containers.list_type, containers.list_map_keys.as_slice()),
        (ListType::Map, ["name"].as_slice())
    );
    assert_eq!((containers.patch_merge, containers.patch_merge_key), (true, Some("name")));
    assert!(containers.required);
    let ports = field(SERVICE, "spec.ports");
    assert_eq!(ports.list_map_keys, ["port", "protocol"]);
    assert_eq!(ports.patch_merge_key, Some("port"));
    let ports = field(POD, "spec.containers.ports");
    assert_eq!(ports.list_map_keys, ["containerPort", "protocol"]);
    assert_eq!(field(POD, "spec.containers.ports.protocol").default, Some("\"TCP\""));
    let finalizers = field(POD, "metadata.finalizers");
    assert_eq!((finalizers.list_type, finalizers.patch_merge), (ListType::Set, true));
    assert_eq!(field(POD, "metadata.ownerReferences").list_map_keys, ["uid"]);
    assert_eq!(field(POD, "spec.tolerations").list_type, ListType::Atomic);
    assert!(!field(POD, "spec.tolerations").patch_merge);
    assert_eq!(
        field(POD, "spec.topologySpreadConstraints").list_map_keys,
        ["topologyKey", "whenUnsatisfiable"]
    );
    assert_eq!(field(POD, "status.conditions").patch_merge_key, Some("type"));
}

#[test]
fn patch_strategies_and_atomic_structs_are_known() {
    let strategy = field(DEPLOYMENT, "spec.strategy");
    assert!(strategy.patch_retain_keys && !strategy.patch_merge);
    let volumes = field(POD, "spec.volumes");
    assert!(volumes.patch_retain_keys && volumes.patch_merge);
    assert!(field(SERVICE, "spec.selector").atomic);
    assert!(field(POD, "spec.nodeSelector").atomic);
    let schema = Schema::get();
    let selector = schema
        .by_name("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector")
        .map(|id| schema.type_(id));
    assert!(selector.is_some_and(|selector| selector.atomic));
}

#[test]
fn protobuf_tags_lead_through_inlined_messages() {
    assert_eq!(field(POD, "metadata.name").proto_tags, [1]);
    assert_eq!(field(POD, "spec.volumes.name").proto_tags, [1]);
    assert_eq!(field(POD, "spec.volumes.emptyDir").proto_tags, [2, 2]);
    assert_eq!(field(POD, "spec.ephemeralContainers.image").proto_tags, [1, 2]);
    assert_eq!(field(POD, "spec.containers.livenessProbe.httpGet").proto_tags, [1, 2]);
}

#[test]
fn scalars_have_shapes_of_their_own() {
    let schema = Schema::get();
    let shape = |kind, path: &str| schema.type_(field(kind, path).type_id).shape.clone();
    assert_eq!(shape(SERVICE, "spec.ports.targetPort"), Shape::IntOrString);
    assert_eq!(shape(POD, "metadata.creationTimestamp"), Shape::Time);
    assert_eq!(shape(("coordination.k8s.io", "v1", "Lease"), "spec.renewTime"), Shape::MicroTime);
    assert_eq!(shape(DEPLOYMENT, "spec.replicas"), Shape::Int32);
    let Shape::Map { value } = shape(POD, "spec.containers.resources.limits") else {
        panic!("limits are a map")
    };
    assert_eq!(schema.type_(value).shape, Shape::Quantity);
    let Shape::Map { value } = shape(("", "v1", "Secret"), "data") else { panic!("data is a map") };
    assert_eq!(schema.type_(value).shape, Shape::Bytes);
    let validation = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    assert!(matches!(
        shape(validation, "spec.versions.schema.openAPIV3Schema.items"),
        Shape::Either { .. }
    ));
    assert_eq!(shape(validation, "spec.versions.schema.openAPIV3Schema.default"), Shape::Any);
}
