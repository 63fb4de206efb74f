//! What expressions see of a write.

use coracle_api::kinds::{self, Kind};
use coracle_api::status::{FieldErrors, Path};
use coracle_cel::{Meter, Type, to_json};
use serde_json::{Value, json};

use super::*;
use crate::admission::{AdmissionRequest, Operation, WriteOptions};
use crate::annotations::Annotations;
use crate::authz::tests::{alice, bootstrapped, grant, put};
use crate::identity::User;
use crate::warnings::Warnings;

async fn host() -> (tempfile::TempDir, Host) {
    let (dir, store, authorizer) = bootstrapped().await;
    let namespace = json!({ "metadata": { "name": "shop", "labels": { "team": "a" } } });
    put(&store, "namespaces", namespace).await;
    (dir, Host { store, authorizer })
}

fn deployments() -> &'static Kind {
    kinds::by_kind("apps", "v1", "Deployment").unwrap()
}

/// Calls `look` with the facts of alice's update of a Deployment from one replica to three.
fn with_facts<T>(host: &Host, look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let user = User { uid: "u1".to_owned(), ..User::new("alice", &[]) };
    let warnings = Warnings::default();
    let new = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 3 } });
    let old = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 1 } });
    let mut object = new.clone();
    let request = AdmissionRequest {
        operation: Operation::Update,
        kind: deployments(),
        subresource: "",
        namespace: "shop",
        name: "web",
        object: &mut object,
        old: Some(&old),
        user: &user,
        warnings: &warnings,
        dry_run: true,
        requested: deployments(),
        options: WriteOptions::None,
        annotations: &Annotations::default(),
    };
    look(&Facts::new(host, &request, deployments(), Some(&new), Some(&old)))
}

fn evaluate(facts: &Facts<'_>, text: &str) -> Result<Value, String> {
    let program = compile(&environment(true), text, &[])?;
    let (variables, mut meter) = (Variables::default(), Meter::new(POLICY_BUDGET));
    let scope = variables.scope(facts, Some(&json!({ "data": { "most": "5" } })));
    let value = program.evaluate(&scope, &mut meter).map_err(|error| error.to_string())?;
    to_json(&value, &mut meter).map_err(|error| error.to_string())
}

#[tokio::test]
async fn expressions_see_the_write_and_what_is_around_it() {
    let (_dir, host) = host().await;
    for holds in [
        "object.spec.replicas == 3 && oldObject.spec.replicas == 1",
        "request.operation == 'UPDATE' && request.name == 'web' && request.namespace == 'shop' && request.dryRun",
        "request.kind.kind == 'Deployment' && request.resource.resource == 'deployments' && request.requestKind.group == 'apps'",
        "request.userInfo.username == 'alice' && request.userInfo.uid == 'u1' && 'system:authenticated' in request.userInfo.groups",
        "!has(request.subResource) && request.options.kind == 'UpdateOptions'",
        "namespaceObject.metadata.labels.team == 'a'",
        "int(params.data.most) > object.spec.replicas",
    ] {
        let found = with_facts(&host, |facts| evaluate(facts, holds));
        assert_eq!(found, Ok(json!(true)), "{holds}");
    }
}

#[tokio::test]
async fn the_authorizer_is_the_servers_own() {
    let (_dir, host) = host().await;
    let rules = json!([{ "apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list"] }]);
    grant(&host.store, "shop", "reader", alice(), rules).await;
    for (expression, wanted) in [
        ("authorizer.group('').resource('pods').namespace('shop').check('list').allowed()", true),
        ("authorizer.group('').resource('pods').namespace('other').check('list').allowed()", false),
        ("authorizer.requestResource.check('get').allowed()", true),
        ("authorizer.requestResource.check('delete').allowed()", false),
        ("authorizer.path('/version').check('get').allowed()", true),
        ("authorizer.path('/metrics').check('get').allowed()", false),
        (
            "authorizer.serviceAccount('shop', 'x').group('').resource('pods').namespace('shop').check('list').allowed()",
            false,
        ),
        (
            "authorizer.group('apps').resource('deployments').subresource('scale').namespace('shop').name('web').check('get').errored()",
            false,
        ),
    ] {
        let found = with_facts(&host, |facts| evaluate(facts, expression));
        assert_eq!(found, Ok(json!(wanted)), "{expression}");
    }
}

#[tokio::test]
async fn variables_are_made_when_they_are_needed() {
    let (_dir, host) = host().await;
    let variables = json!([
        { "name": "few", "expression": "object.spec.replicas < 5" },
        { "name": "broken", "expression": "object.spec.nothing" },
        { "name": "both", "expression": "variables.few && request.operation == 'UPDATE'" },
    ]);
    let (variables, environment) = Variables::compile(environment(false), &variables);
    let check = |text: &str| {
        let program = environment.compile(text).map_err(|problems| problems.to_string())?;
        with_facts(&host, |facts| {
            let value = program.evaluate(&variables.scope(facts, None), &mut Meter::new(10_000));
            value.map_err(|error| error.to_string())
        })
        .map(|value| value == coracle_cel::Value::Bool(true))
    };
    assert_eq!(check("variables.both || variables.broken"), Ok(true));
    assert_eq!(
        check("variables.broken == 1"),
        Err("composited variable \"broken\" fails to evaluate: no such key: nothing".to_owned())
    );
    assert!(check("variables.unknown").unwrap_err().contains("undefined field 'unknown'"));
}

#[tokio::test]
async fn conditions_decide_together() {
    let (_dir, host) = host().await;
    let check = |expressions: &[&str], wanted: Judgement| {
        let all = expressions.iter().enumerate();
        let all: Vec<Value> = all
            .map(|(index, expression)| json!({ "name": index.to_string(), "expression": expression }))
            .collect();
        let conditions = MatchConditions::read(&json!(all), false);
        assert_eq!(with_facts(&host, |facts| conditions.judge(facts)), wanted, "{expressions:?}");
    };
    check(&[], Judgement::Matches);
    check(&["true", "object.spec.replicas == 3"], Judgement::Matches);
    check(&["true", "request.userInfo.username != 'alice'"], Judgement::Differs);
    // One that says no is enough, whatever fails before it.
    check(&["object.a == 1", "false"], Judgement::Differs);
    let failed = "expression 'object.a == 1' resulted in error: no such key: a";
    check(&["object.a == 1", "true"], Judgement::Failed(failed.to_owned()));
    check(
        &["object.a == 1", "object.b"],
        Judgement::Failed(format!(
            "[{failed}, expression 'object.b' resulted in error: no such key: b]"
        )),
    );
}

#[test]
fn conditions_are_checked_before_they_are_stored() {
    let check = |conditions: Value, wanted: &[&str]| {
        let mut errors = FieldErrors::new();
        MatchConditions::validate(&conditions, false, &Path::new("matchConditions"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    };
    check(json!([{ "name": "a", "expression": "object.a == 1" }]), &[]);
    check(
        json!([{ "name": "a", "expression": " " }, { "name": "a", "expression": "1" }, { "expression": "params.x" }, { "name": "&", "expression": "true" }]),
        &[
            "matchConditions[0].expression: Required value",
            "matchConditions[1].expression: Invalid value: \"1\": must evaluate to bool",
            "matchConditions[1].name: Duplicate value: \"a\"",
            "matchConditions[2].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x\n | ^",
            "matchConditions[2].name: Required value",
            "matchConditions[3].name: Invalid value: \"&\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
}

#[test]
fn objects_of_built_in_kinds_have_types() {
    let environment = environment_of(&kind_type(deployments()).unwrap(), None);
    let check = |text: &str| compile(&environment, text, &[Type::Bool]).err();
    assert_eq!(check("object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'"), None);
    assert_eq!(check("object.spec.template.spec.containers.all(c, c.image.startsWith('x'))"), None);
    assert!(
        check("object.spec.replicas > '1'").unwrap().contains("'_>_' applied to '(int, string)'")
    );
    assert!(check("object.foo == 1").unwrap().contains("undefined field 'foo'"));
}
