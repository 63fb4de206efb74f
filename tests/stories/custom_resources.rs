//! Custom resources as kubectl shows them: defined, used, explained, waited for and deleted.

use coracle_tests::{Cluster, kubectls};

const DEFINITION: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: boats.harbour.example.com
spec:
  group: harbour.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.oars, statusReplicasPath: .status.oars}
    additionalPrinterColumns:
    - {name: Oars, type: integer, jsonPath: .spec.oars}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type==\"Ready\")].status'}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: Boat is what people cross water in.
        properties:
          spec:
            type: object
            description: What the boat should be.
            required: [oars]
            properties:
              oars: {type: integer, minimum: 1, maximum: 8, description: How many oars it has.}
              colour: {type: string, default: brown, enum: [brown, green]}
              name: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: a boat keeps its name}]}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
";

fn boat(oars: &str) -> String {
    format!(
        "apiVersion: harbour.example.com/v1\nkind: Boat\nmetadata: {{name: gull}}\nspec: {{oars: {oars}, name: Gull}}\n"
    )
}

/// Runs kubectl and checks that it prints each of these.
#[track_caller]
fn shows(cluster: &Cluster, command: &str, expected: &[&str]) {
    let text = cluster.kubectl(&command.split(' ').collect::<Vec<_>>());
    for part in expected {
        assert!(text.contains(part), "kubectl {command} shows no {part:?}:\n{text}");
    }
}

#[test]
fn custom_resources_are_used_like_all_others() {
    for kubectl in kubectls() {
        let cluster = Cluster::start().with_kubectl(&kubectl);
        cluster.apply(DEFINITION);
        shows(
            &cluster,
            "wait --for=condition=Established crd/boats.harbour.example.com --timeout=10s",
            &["condition met"],
        );
        shows(
            &cluster,
            "api-resources --api-group=harbour.example.com",
            &["boats", "bt", "harbour.example.com/v1", "Boat"],
        );
        shows(
            &cluster,
            "explain boats",
            &["Boat is what people cross water in", "spec", "What the boat should be"],
        );
        shows(&cluster, "explain boats.spec.oars", &["How many oars it has", "integer"]);
        shows(&cluster, "explain boats --recursive", &["colour", "oars", "managedFields"]);
        // The only way in which kubectl still shows that it reads version 2, as protobuf.
        let of_version_two = "explain boats.spec.oars --output=plaintext-openapiv2";
        shows(&cluster, of_version_two, &["How many oars it has", "<integer>"]);

        assert!(cluster.apply(&boat("2")).contains("boat.harbour.example.com/gull created"));
        assert!(cluster.apply(&boat("2")).contains("unchanged"));
        assert!(cluster.apply(&boat("3")).contains("configured"));
        shows(&cluster, "get bt", &["NAME", "OARS", "READY", "AGE", "gull", "3"]);
        shows(&cluster, "get all", &["boat.harbour.example.com/gull"]);
        shows(&cluster, "get boat gull -o jsonpath={.spec.colour}", &["brown"]);
        shows(&cluster, "describe boat gull", &["Name:", "gull", "Colour:", "brown"]);
        shows(&cluster, "scale boat/gull --replicas=4", &["scaled"]);
        shows(&cluster, "label boat gull place=quay", &["labeled"]);
        shows(&cluster, "get boats -l place=quay -o name", &["boat.harbour.example.com/gull"]);
        let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
        shows(
            &cluster,
            &format!("patch boat gull --subresource=status --type=merge -p {status}"),
            &["patched"],
        );
        shows(&cluster, "wait --for=condition=Ready boat/gull --timeout=10s", &["condition met"]);

        let refused = cluster.try_kubectl_with(&["apply", "-f", "-"], &boat("99"));
        let message = refused.stderr;
        assert!(
            message.contains("spec.oars in body should be less than or equal to 8"),
            "{message}"
        );
        let refused = cluster.try_kubectl_with(&["apply", "-f", "-"], &boat("2, mast: 1"));
        let message = refused.stderr;
        assert!(message.contains("unknown field \"spec.mast\""), "{message}");
        let renamed = boat("2").replace("Gull", "Tern");
        let refused = cluster.try_kubectl_with(&["apply", "-f", "-"], &renamed);
        let message = refused.stderr;
        assert!(message.contains("a boat keeps its name"), "{message}");

        shows(&cluster, "delete crd boats.harbour.example.com --timeout=20s", &["deleted"]);
        let gone = cluster.kubectl_refused(&["get", "boats"]);
        assert!(
            gone.contains("the server doesn't have a resource type")
                || gone.contains("could not find"),
            "{gone}"
        );
    }
}

#[test]
fn a_namespace_takes_its_custom_resources_along() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    shows(
        &cluster,
        "wait --for=condition=Established crd/boats.harbour.example.com --timeout=10s",
        &["condition met"],
    );
    cluster.kubectl(&["create", "namespace", "lake"]);
    let created = cluster.try_kubectl_with(&["apply", "-n", "lake", "-f", "-"], &boat("2"));
    assert_eq!(created.code, Some(0), "{created:#?}");
    shows(&cluster, "delete namespace lake --timeout=60s", &["deleted"]);
    cluster.kubectl(&["create", "namespace", "lake"]);
    assert_eq!(cluster.kubectl(&["get", "boats", "-n", "lake", "-o", "name"]), "");
}

#[test]
fn what_a_custom_resource_owns_goes_with_it() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    shows(
        &cluster,
        "wait --for=condition=Established crd/boats.harbour.example.com --timeout=10s",
        &["condition met"],
    );
    cluster.apply(&boat("2"));
    let uid = cluster.kubectl(&["get", "boat", "gull", "-o", "jsonpath={.metadata.uid}"]);
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: chart\n  ownerReferences:\n  - {{apiVersion: harbour.example.com/v1, kind: \
         Boat, name: gull, uid: {uid}}}\n"
    ));
    cluster.kubectl(&["delete", "boat", "gull"]);
    cluster.until("the chart is gone", |cluster| {
        cluster.try_kubectl(&["get", "configmap", "chart"]).code == Some(1)
    });
}
