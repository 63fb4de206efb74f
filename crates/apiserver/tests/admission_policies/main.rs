//! Admission by expressions, from the definition of a policy to the answer to whoever is refused.

#[path = "../harness/mod.rs"]
mod harness;
mod mutating;
mod requests;

use harness::{Answer, Harness, config_map};
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";

fn rules(groups: &[&str], resources: &[&str], operations: &[&str]) -> Value {
    json!({ "resourceRules": [{
        "apiGroups": groups, "apiVersions": ["*"], "resources": resources, "operations": operations,
    }] })
}

fn for_config_maps() -> Value {
    rules(&[""], &["configmaps"], &["CREATE", "UPDATE"])
}

/// A policy and a binding, both of this name, whose specs are these beside what all have.
async fn bind(api: &Harness, sort: &str, name: &str, mut spec: Value, binding: Value) {
    let kind = format!("{sort}AdmissionPolicy");
    if spec.get("matchConstraints").is_none() {
        spec["matchConstraints"] = for_config_maps();
    }
    if sort == "Mutating" && spec.get("reinvocationPolicy").is_none() {
        spec["reinvocationPolicy"] = json!("Never");
    }
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    let sort = sort.to_lowercase();
    api.post(&format!("{POLICIES}/{sort}admissionpolicies"), policy).await.expect(201);
    let mut bound = json!({ "policyName": name });
    if sort == "validating" {
        bound["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in binding.as_object().into_iter().flatten() {
        bound[field] = value.clone();
    }
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}Binding"),
        "metadata": { "name": name }, "spec": bound,
    });
    api.post(&format!("{POLICIES}/{sort}admissionpolicybindings"), binding).await.expect(201);
}

async fn server() -> Harness {
    let api = Harness::start().await;
    api.namespace("shop").await;
    api
}

async fn create(api: &Harness, name: &str, data: Value) -> Answer {
    let mut map = config_map(name, json!({ "app": name }));
    map["data"] = data;
    api.post("/api/v1/namespaces/shop/configmaps", map).await
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_policy_refuses_from_the_moment_at_which_it_is_bound() {
    let api = server().await;
    let spec = json!({ "validations": [
        { "expression": "object.data.size() < 3", "messageExpression": "'too many: ' + string(object.data.size())" },
        { "expression": "!('secret' in object.data)", "message": " no secrets here ", "reason": "Forbidden" },
        { "expression": "!has(object.data.odd)" },
    ] });
    bind(&api, "Validating", "few", spec, json!({})).await;
    create(&api, "good", json!({ "a": "1" })).await.expect(201);
    let refused = create(&api, "many", json!({ "a": "1", "b": "2", "c": "3" })).await;
    let body = refused.expect(422);
    let message = "configmaps \"many\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' denied request: too many: 3";
    assert_eq!(body["message"], message);
    assert_eq!(body["reason"], "Invalid");
    assert_eq!(
        body["details"]["causes"][0]["message"],
        "ValidatingAdmissionPolicy 'few' with binding 'few' denied request: too many: 3"
    );
    let message = create(&api, "s", json!({ "secret": "1" })).await.refused(403, "Forbidden");
    assert!(message.ends_with("denied request: no secrets here"), "{message}");
    let message = create(&api, "o", json!({ "odd": "1" })).await.refused(422, "Invalid");
    assert!(
        message.ends_with("denied request: failed expression: !has(object.data.odd)"),
        "{message}"
    );
    // Updates are judged as well, and so are patches.
    let path = "/api/v1/namespaces/shop/configmaps/good";
    let patch = json!({ "data": { "secret": "x" } });
    api.patch(path, "merge-patch", patch).await.refused(403, "Forbidden");
    // Without its binding, a policy does nothing.
    api.delete(&format!("{POLICIES}/validatingadmissionpolicybindings/few"), json!({}))
        .await
        .expect(200);
    create(&api, "secretive", json!({ "secret": "1" })).await.expect(201);
}

#[tokio::test]
async fn conditions_variables_and_selectors_say_what_a_policy_is_for() {
    let api = server().await;
    let spec = json!({
        "matchConditions": [{ "name": "not-exempt", "expression": "!has(object.metadata.annotations) || !('exempt' in object.metadata.annotations)" }],
        "variables": [
            { "name": "keys", "expression": "object.data.map(key, key)" },
            { "name": "long", "expression": "variables.keys.filter(key, key.size() > 3)" },
        ],
        "validations": [{ "expression": "variables.long.size() == 0", "messageExpression": "'long: ' + variables.long.join(',')" }],
    });
    let only =
        json!({ "matchResources": { "objectSelector": { "matchLabels": { "app": "judged" } } } });
    bind(&api, "Validating", "short", spec, only).await;
    create(&api, "other", json!({ "abcd": "1" })).await.expect(201);
    let message = create(&api, "judged", json!({ "abcd": "1" })).await.refused(422, "Invalid");
    assert!(message.ends_with("denied request: long: abcd"), "{message}");
    let mut map = config_map("judged", json!({ "app": "judged" }));
    map["metadata"]["annotations"] = json!({ "exempt": "" });
    map["data"] = json!({ "abcd": "1" });
    api.post("/api/v1/namespaces/shop/configmaps", map).await.expect(201);
}

#[tokio::test]
async fn failures_are_refusals_or_ignored() {
    let api = server().await;
    let spec = |policy: &str| json!({ "failurePolicy": policy, "validations": [{ "expression": "object.data.nothing == 'x'" }] });
    bind(&api, "Validating", "ignoring", spec("Ignore"), json!({})).await;
    create(&api, "a", json!({ "a": "1" })).await.expect(201);
    bind(&api, "Validating", "strict", spec("Fail"), json!({})).await;
    let message = create(&api, "b", json!({ "a": "1" })).await.refused(422, "Invalid");
    assert!(
        message.ends_with("denied request: expression 'object.data.nothing == 'x'' resulted in error: no such key: nothing"),
        "{message}"
    );
}

#[tokio::test]
async fn bindings_may_warn_instead() {
    let api = server().await;
    let spec = json!({ "validations": [{ "expression": "false", "message": "not so" }] });
    let actions = json!({ "validationActions": ["Warn", "Audit"] });
    bind(&api, "Validating", "soft", spec, actions).await;
    let answer = create(&api, "a", json!({})).await;
    assert_eq!(
        warnings(&answer),
        [
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'soft' with binding 'soft': not so\""
        ]
    );
    answer.expect(201);
}

#[tokio::test]
async fn parameters_come_from_objects() {
    let api = server().await;
    let spec = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConstraints": rules(&["apps"], &["deployments"], &["CREATE"]),
        "validations": [{ "expression": "params == null || object.spec.replicas <= int(params.data.most)", "messageExpression": "'at most ' + params.data.most" }],
    });
    let named = json!({ "paramRef": { "name": "limits", "parameterNotFoundAction": "Deny" } });
    bind(&api, "Validating", "most", spec, named).await;
    let deploy = |name: &str, replicas: i64| {
        let labels = json!({ "app": name });
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name }, "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "a", "image": "a" }] } } } })
    };
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let message = api.post(path, deploy("a", 1)).await.refused(422, "Invalid");
    assert!(
        message.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{message}"
    );
    create(&api, "limits", json!({ "most": "2" })).await.expect(201);
    api.post(path, deploy("a", 2)).await.expect(201);
    let message = api.post(path, deploy("b", 3)).await.refused(422, "Invalid");
    assert!(message.ends_with("denied request: at most 2"), "{message}");
}

#[tokio::test]
async fn deletions_are_judged_by_the_old_state() {
    let api = server().await;
    create(&api, "kept", json!({ "keep": "yes" })).await.expect(201);
    create(&api, "loose", json!({})).await.expect(201);
    let spec = json!({
        "matchConstraints": rules(&[""], &["configmaps"], &["DELETE"]),
        "validations": [{ "expression": "object == null && !has(oldObject.data) || request.operation != 'DELETE'" }],
    });
    bind(&api, "Validating", "keep", spec, json!({})).await;
    api.delete("/api/v1/namespaces/shop/configmaps/kept", json!({})).await.refused(422, "Invalid");
    api.delete("/api/v1/namespaces/shop/configmaps/loose", json!({})).await.expect(200);
}

#[tokio::test]
async fn policies_that_cannot_work_are_refused() {
    let api = server().await;
    let check = async |kind: &str, spec: Value, wanted: &[&str]| {
        let plural = if kind.ends_with("Binding") {
            format!("{kind}s")
        } else {
            kind.replace("Policy", "Policies")
        };
        let path = format!("{POLICIES}/{}", plural.to_lowercase());
        let body = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "bad" }, "spec": spec });
        let body = api.post(&path, body).await.expect(422);
        let causes = body["details"]["causes"].as_array().unwrap();
        let found: Vec<String> = causes
            .iter()
            .map(|cause| {
                format!(
                    "{}: {}",
                    cause["field"].as_str().unwrap(),
                    cause["message"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(found, wanted);
    };
    let validating = "ValidatingAdmissionPolicy";
    check(
        validating,
        json!({ "matchConstraints": for_config_maps(), "validations": [
            { "expression": "object.a ==" }, { "expression": "1" }, { "expression": "true", "messageExpression": "2", "reason": "Odd" },
            { "expression": "params.a" } ],
            "variables": [{ "name": "a b", "expression": "nope" }] }),
        &[
            "spec.variables[0].name: Invalid value: \"a b\": name is not a valid CEL identifier",
            "spec.variables[0].expression: Invalid value: \"nope\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^",
            "spec.validations[0].expression: Invalid value: \"object.a ==\": compilation failed: ERROR: <input>:1:12: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.a ==\n | ...........^",
            "spec.validations[1].expression: Invalid value: \"1\": must evaluate to bool",
            "spec.validations[2].messageExpression: Invalid value: \"2\": must evaluate to string",
            "spec.validations[2].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\", \"Unauthorized\"",
            "spec.validations[3].expression: Invalid value: \"params.a\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.a\n | ^",
        ],
    )
    .await;
    check(
        "MutatingAdmissionPolicy",
        json!({ "matchConstraints": rules(&[""], &["pods"], &["DELETE"]), "reinvocationPolicy": "Never", "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "{}" } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression": "[JSONPatch{opp: 'add'}]" } } ] }),
        &[
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"{}\": must evaluate to Object",
            "spec.mutations[1].jsonPatch.expression: Invalid value: \"[JSONPatch{opp: 'add'}]\": compilation failed: ERROR: <input>:1:15: undefined field 'opp'\n | [JSONPatch{opp: 'add'}]\n | ..............^",
        ],
    )
    .await;
    check(
        "ValidatingAdmissionPolicyBinding",
        json!({ "validationActions": ["Deny", "Warn"], "paramRef": {} }),
        &[
            "spec.policyName: Required value",
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_status_says_which_expressions_do_not_fit() {
    let api = server().await;
    let deployments = rules(&["apps"], &["deployments"], &["CREATE"]);
    let mut deployments_v1 = deployments.clone();
    deployments_v1["resourceRules"][0]["apiVersions"] = json!(["v1"]);
    let spec = json!({ "matchConstraints": deployments_v1, "validations": [
        { "expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas" },
        { "expression": "object.spec.replicas > 1" }, { "expression": "object.foo == 1" },
    ] });
    let path = format!("{POLICIES}/validatingadmissionpolicies");
    let mut watch = api.watch(&format!("{path}?watch=1")).await;
    let policy = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "odd" }, "spec": spec });
    api.post(&path, policy).await.expect(201);
    let status = loop {
        let event = harness::next(&mut watch).await;
        if event["object"]["status"]["typeChecking"].is_object() {
            break event["object"]["status"].clone();
        }
    };
    assert_eq!(status["observedGeneration"], 1);
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap();
    let fields: Vec<&str> =
        warnings.iter().map(|warning| warning["fieldRef"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "spec.validations[0].expression",
            "spec.validations[0].messageExpression",
            "spec.validations[2].expression"
        ]
    );
    assert_eq!(
        warnings[0]["warning"],
        "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n"
    );
    assert!(warnings[1]["warning"].as_str().unwrap().contains("'_+_' applied to '(string, int)'"));
    assert!(warnings[2]["warning"].as_str().unwrap().contains("undefined field 'foo'"));
}

#[tokio::test]
async fn policies_cannot_lock_themselves_up() {
    let api = server().await;
    let spec = json!({ "matchConstraints": rules(&["*"], &["*"], &["*"]), "validations": [{ "expression": "false" }] });
    bind(&api, "Validating", "nothing", spec, json!({})).await;
    create(&api, "a", json!({})).await.refused(422, "Invalid");
    api.delete(&format!("{POLICIES}/validatingadmissionpolicies/nothing"), json!({}))
        .await
        .expect(200);
    create(&api, "a", json!({})).await.expect(201);
}

#[tokio::test]
async fn expressions_that_cost_too_much_are_refused_in_time() {
    let api = server().await;
    let ten = "[1,2,3,4,5,6,7,8,9,10]";
    let nested = format!(
        "{ten}.all(a, {ten}.all(b, {ten}.all(c, {ten}.all(d, {ten}.all(e, {ten}.all(f, {ten}.all(g, a+b+c+d+e+f+g > 0)))))))"
    );
    bind(
        &api,
        "Validating",
        "slow",
        json!({ "validations": [{ "expression": nested }] }),
        json!({}),
    )
    .await;
    let message = create(&api, "a", json!({})).await.refused(422, "Invalid");
    assert!(message.contains("running out of cost budget"), "{message}");
}

#[tokio::test]
async fn the_authorizer_answers_for_whoever_asks() {
    let api = server().await;
    let spec = json!({ "validations": [{
        "expression": "authorizer.group('').resource('secrets').namespace('shop').check('delete').allowed()",
        "message": "only for those who may delete secrets", "reason": "Forbidden",
    }] });
    bind(&api, "Validating", "trusted", spec, json!({})).await;
    create(&api, "by-admin", json!({})).await.expect(201);
    let rules = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] }]);
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "maker" }, "rules": rules });
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
    api.post(&format!("{rbac}/roles"), role).await.expect(201);
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "maker" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maker" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob" }] });
    api.post(&format!("{rbac}/rolebindings"), binding).await.expect(201);
    let bob = api.api.client(coracle_apiserver::identity::User::new("bob", &[]));
    let body = config_map("by-bob", json!({})).to_string().into_bytes();
    let request = http::Request::post("/api/v1/namespaces/shop/configmaps")
        .header("content-type", "application/json");
    let message = harness::send(&bob, request.body(body).unwrap()).await.refused(403, "Forbidden");
    assert!(message.ends_with("only for those who may delete secrets"), "{message}");
}

#[tokio::test]
async fn nobody_lets_policies_read_for_him() {
    let api = server().await;
    let rules = json!([{ "apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"] }]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "policies" }, "rules": rules });
    api.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "policies" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob" }] });
    api.post(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
    let bob = api.api.client(coracle_apiserver::identity::User::new("bob", &[]));
    let post = async |plural: &str, body: Value| {
        let request = http::Request::post(format!("{POLICIES}/{plural}"))
            .header("content-type", "application/json");
        harness::send(&bob, request.body(body.to_string().into_bytes()).unwrap()).await
    };
    let policy = |spec: Value| {
        let mut spec = spec;
        spec["matchConstraints"] = for_config_maps();
        spec["validations"] = json!([{ "expression": "true" }]);
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "p" }, "spec": spec })
    };
    let with_params = policy(json!({ "paramKind": { "apiVersion": "v1", "kind": "Secret" } }));
    let message =
        post("validatingadmissionpolicies", with_params.clone()).await.refused(422, "Invalid");
    assert!(
        message.ends_with("spec.paramKind: Forbidden: user bob must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)"),
        "{message}"
    );
    api.post(&format!("{POLICIES}/validatingadmissionpolicies"), with_params).await.expect(201);
    let bound = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "b" },
        "spec": { "policyName": "p", "validationActions": ["Deny"], "paramRef": { "name": "s", "namespace": "shop", "parameterNotFoundAction": "Allow" } } });
    post("validatingadmissionpolicybindings", bound).await.refused(422, "Invalid");
}

#[tokio::test]
async fn policies_live_as_other_objects_do() {
    let api = server().await;
    for sort in ["Validating", "Mutating"] {
        let kind = format!("{sort}AdmissionPolicy");
        let path = format!("{POLICIES}/{}admissionpolicies", sort.to_lowercase());
        let mut spec = json!({ "matchConstraints": for_config_maps() });
        if sort == "Validating" {
            spec["validations"] = json!([{ "expression": "object.data.a == 'b'" }]);
        } else {
            spec["reinvocationPolicy"] = json!("Never");
            spec["mutations"] = json!([{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "\n\t\t\tObject{\n metadata: Object.metadata{ annotations: { \"a\": \"b\" } } }" } }]);
        }
        let template = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "generateName": "e2e-example-", "labels": { "e2e": "x" } }, "spec": spec });
        for _ in 0..3 {
            api.post(&path, template.clone()).await.expect(201);
        }
        let list = api.get(&format!("{path}?labelSelector=e2e%3Dx")).await.expect(200);
        let names = harness::names(&list);
        assert_eq!(names.len(), 3);
        let one = format!("{path}/{}", names[0]);
        let patch = json!({ "metadata": { "annotations": { "patched": "true" } }, "spec": { "failurePolicy": "Ignore" } });
        let patched = api.patch(&one, "merge-patch", patch).await.expect(200);
        assert_eq!(
            (&patched["spec"]["failurePolicy"], &patched["metadata"]["generation"]),
            (&json!("Ignore"), &json!(2))
        );
        if sort == "Validating" {
            let status = format!("{one}/status");
            assert_eq!(api.get(&status).await.expect(200)["kind"], kind);
            let condition = json!({ "type": "StatusPatched", "status": "True", "reason": "e2e", "message": "m", "lastTransitionTime": "2024-01-01T00:00:00Z" });
            let patch = json!({ "metadata": { "annotations": { "patchedstatus": "true" } }, "status": { "conditions": [condition] } });
            let patched = api.patch(&status, "merge-patch", patch).await.expect(200);
            assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatched");
            let mut watch = api
                .watch(&format!("{path}?watch=1&fieldSelector=metadata.name%3D{}", names[0]))
                .await;
            let mut current = loop {
                let current = harness::next(&mut watch).await["object"].clone();
                let status = &current["status"];
                if status["observedGeneration"] == 2 && status["conditions"].is_array() {
                    break current;
                }
            };
            current["status"]["conditions"][0]["type"] = json!("StatusUpdated");
            let updated = api.put(&status, current).await.expect(200);
            assert_eq!(updated["status"]["conditions"][0]["type"], "StatusUpdated");
            assert!(updated["status"]["typeChecking"].is_object());
        }
        api.delete(&one, json!({})).await.expect(200);
        assert_eq!(api.get(&one).await.code, 404);
        api.delete(&format!("{path}?labelSelector=e2e%3Dx"), json!({})).await.expect(200);
        assert!(harness::names(&api.get(&path).await.expect(200)).is_empty());
    }
}

#[tokio::test]
async fn conditions_of_webhooks_have_to_compile() {
    let api = server().await;
    let configuration = |expression: &str| {
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": { "name": "hooks" },
            "webhooks": [{ "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": { "url": "https://127.0.0.1:1/a" }, "rules": [],
                "matchConditions": [{ "name": "expression-1", "expression": expression }] }] })
    };
    let path = format!("{POLICIES}/validatingwebhookconfigurations");
    let message =
        api.post(&path, configuration("... [} bad expression")).await.refused(422, "Invalid");
    assert!(
        message.contains("webhooks[0].matchConditions[0].expression: Invalid value"),
        "{message}"
    );
    assert!(message.contains("compilation failed"), "{message}");
    api.post(&path, configuration("object.metadata.name != 'skip-me'")).await.expect(201);
}

#[tokio::test]
async fn parameters_are_selected_and_may_be_missing() {
    let api = server().await;
    let labelled = |name: &str, word: &str| {
        let mut map = config_map(name, json!({ "words": "forbidden" }));
        map["data"] = json!({ "word": word });
        map
    };
    for (name, word) in [("w1", "one"), ("w2", "two")] {
        api.post("/api/v1/namespaces/shop/configmaps", labelled(name, word)).await.expect(201);
    }
    let params = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let spec = json!({ "paramKind": params, "validations": [{ "expression": "object.metadata.name != params.data.word", "messageExpression": "'not ' + params.data.word" }] });
    let selected = json!({ "paramRef": { "selector": { "matchLabels": { "words": "forbidden" } }, "parameterNotFoundAction": "Allow" } });
    bind(&api, "Validating", "words", spec, selected).await;
    create(&api, "three", json!({})).await.expect(201);
    for name in ["one", "two"] {
        let message = create(&api, name, json!({})).await.refused(422, "Invalid");
        assert!(message.ends_with(&format!("denied request: not {name}")), "{message}");
    }
    // In a namespace without any, everything goes.
    api.namespace("empty").await;
    api.post("/api/v1/namespaces/empty/configmaps", config_map("one", json!({}))).await.expect(201);
    let spec = json!({ "paramKind": { "apiVersion": "example.com/v1", "kind": "Limit" }, "validations": [{ "expression": "true" }] });
    let named = json!({ "paramRef": { "name": "x", "parameterNotFoundAction": "Allow" } });
    bind(&api, "Validating", "unknown", spec, named).await;
    let message = create(&api, "four", json!({})).await.refused(422, "Invalid");
    assert!(
        message.ends_with("ValidatingAdmissionPolicy 'unknown' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"),
        "{message}"
    );
}

#[tokio::test]
async fn custom_kinds_are_judged_checked_and_changed() {
    let api = server().await;
    let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "boats.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "boats", "singular": "boat", "kind": "Boat" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                "spec": { "type": "object", "properties": { "oars": { "type": "integer" }, "name": { "type": "string" },
                    "crew": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "role": { "type": "string" } } } } } } } } } }] } });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut watch = api.watch(&format!("{definitions}?watch=1")).await;
    api.post(definitions, definition).await.expect(201);
    while !harness::next(&mut watch).await["object"]["status"]["conditions"].as_array().is_some_and(
        |all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"),
    ) {}
    let mut boats = rules(&["example.com"], &["boats"], &["CREATE"]);
    boats["resourceRules"][0]["apiVersions"] = json!(["v1"]);
    let mutations = json!([{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
        "Object{ spec: Object.spec{ crew: [Object.spec.crew{ name: 'cook', role: 'cooks' }] } }" } }]);
    bind(
        &api,
        "Mutating",
        "cook",
        json!({ "matchConstraints": boats, "mutations": mutations }),
        json!({}),
    )
    .await;
    let spec = json!({ "matchConstraints": boats, "validations": [
        { "expression": "object.spec.oars % 2 == 0", "message": "oars come in pairs" }, { "expression": "object.spec.name + 1 == 2 || true" } ] });
    let mut watch = api.watch(&format!("{POLICIES}/validatingadmissionpolicies?watch=1")).await;
    bind(&api, "Validating", "pairs", spec, json!({})).await;
    let path = "/apis/example.com/v1/namespaces/shop/boats";
    let boat = |oars: i64| {
        json!({ "apiVersion": "example.com/v1", "kind": "Boat", "metadata": { "name": format!("b{oars}") },
        "spec": { "oars": oars, "name": "x", "crew": [{ "name": "captain" }] } })
    };
    let made = api.post(path, boat(4)).await.expect(201);
    assert_eq!(
        made["spec"]["crew"],
        json!([{ "name": "captain" }, { "name": "cook", "role": "cooks" }])
    );
    let message = api.post(path, boat(3)).await.refused(422, "Invalid");
    assert!(message.ends_with("oars come in pairs"), "{message}");
    let warnings = loop {
        let event = harness::next(&mut watch).await;
        let checked = event["object"]["status"]["typeChecking"].clone();
        if checked.is_object() {
            break checked["expressionWarnings"].clone();
        }
    };
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[1].expression");
    assert!(warnings[0]["warning"].as_str().unwrap().starts_with("example.com/v1, Kind=Boat: ERROR: <input>:1:18: found no matching overload for '_+_' applied to '(string, int)'"));
}

#[tokio::test]
async fn violations_are_counted() {
    let api = server().await;
    let spec = json!({ "failurePolicy": "Ignore", "validations": [
        { "expression": "!('bad' in object.data)" }, { "expression": "object.data.a == '1'" } ] });
    bind(&api, "Validating", "few", spec, json!({ "validationActions": ["Audit", "Warn"] })).await;
    create(&api, "x", json!({ "bad": "1", "a": "1" })).await.expect(201);
    create(&api, "y", json!({ "b": "1" })).await.expect(201);
    let metrics = String::from_utf8(api.get("/metrics").await.bytes).unwrap();
    for (error, action) in [("no_error", "warn"), ("no_error", "audit"), ("invalid_error", "allow")]
    {
        let labels = format!(
            r#"policy="few",policy_binding="few",error_type="{error}",enforcement_action="{action}""#
        );
        let line = format!("apiserver_validating_admission_policy_check_total{{{labels}}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}
