//! Admission policies and their bindings. As upstream
//! (<https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/admissionregistration/validation/validation.go>).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use coracle_cel::{Environment, Type};
use serde_json::Value;

use crate::admission::policies::{Format, with_objects};
use crate::expressions::{MatchConditions, Variables, compile, environment};
use crate::rules::Rules;
use crate::rules::checks::{label_selector, one_of, required, required_one_of, unique};
use crate::rules::json::{Read, default, each, object, with};
use crate::rules::webhook::{default_match_fields, validate_rule};

/// How many notes for the audit log a policy may have; upstream's bound.
const NOTES: usize = 20;

/// The longest expression of a note; upstream's bound.
const NOTE_EXPRESSION_BYTES: usize = 5 * 1024;

pub static VALIDATING: Rules =
    Rules { default: default_policy, validate: validate_validating, ..Rules::GENERIC };

pub static MUTATING: Rules =
    Rules { default: default_policy, validate: validate_mutating, ..Rules::GENERIC };

pub static BINDING: Rules = Rules {
    default: |binding| with(object(binding, "spec"), "matchResources", default_match),
    validate: validate_binding,
    ..Rules::GENERIC
};

fn default_policy(policy: &mut Value) {
    let spec = object(policy, "spec");
    default(spec, "failurePolicy", "Fail");
    with(spec, "matchConstraints", default_match);
}

fn default_match(resources: &mut Value) {
    default_match_fields(resources);
    for list in ["resourceRules", "excludeResourceRules"] {
        each(resources, list, |rule| default(rule, "scope", "*"));
    }
}

fn validate_validating(policy: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    let environment = validate_head(spec, environment, &path, errors);
    let (validations, notes) = (&spec["validations"], &spec["auditAnnotations"]);
    if validations.size() + notes.size() == 0 {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(path.child("validations"), detail);
        errors.required(path.child("auditAnnotations"), detail);
    }
    for (index, validation) in validations.items().iter().enumerate() {
        let at = path.child("validations").index(index);
        validate_validation(&environment, validation, &at, errors);
    }
    if notes.size() > NOTES {
        let detail = format!("must not have more than {NOTES} auditAnnotations");
        errors.invalid(path.child("auditAnnotations"), notes.clone(), detail);
    }
    let mut keys = Vec::new();
    for (index, note) in notes.items().iter().enumerate() {
        let at = path.child("auditAnnotations").index(index);
        let key = note["key"].text();
        let whole = format!("{}/{key}", policy["metadata"]["name"].text());
        errors.invalid_each(at.child("key"), &whole, names::qualified_name(&whole));
        validate_note(&environment, note, &at.child("valueExpression"), errors);
        unique(&mut keys, key, at.child("key"), errors);
    }
}

fn validate_mutating(policy: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    let with_objects = |has_params: bool| with_objects(environment(has_params));
    let environment = validate_head(spec, with_objects, &path, errors);
    for rule in spec["matchConstraints"]["resourceRules"].items() {
        let at = path.child("matchConstraints").child("resourceRules").child("operations");
        for operation in rule["operations"].items() {
            one_of(operation, &["*", "CONNECT", "CREATE", "UPDATE"], &at, errors);
        }
    }
    if spec["mutations"].size() == 0 {
        errors.required(path.child("mutations"), "mutations must contain at least one item");
    }
    for (index, mutation) in spec["mutations"].items().iter().enumerate() {
        validate_mutation(&environment, mutation, &path.child("mutations").index(index), errors);
    }
    let again = path.child("reinvocationPolicy");
    required_one_of(&spec["reinvocationPolicy"], &["IfNeeded", "Never"], again, errors);
}

/// What both sorts of policies have; gives what their other expressions may use.
fn validate_head(
    spec: &Value,
    environment: impl FnOnce(bool) -> Environment,
    path: &Path,
    errors: &mut FieldErrors,
) -> Environment {
    let failure = path.child("failurePolicy");
    required_one_of(&spec["failurePolicy"], &["Fail", "Ignore"], failure, errors);
    let has_params = spec["paramKind"].is_set();
    if has_params {
        validate_param_kind(&spec["paramKind"], &path.child("paramKind"), errors);
    }
    let (constraints, at) = (&spec["matchConstraints"], path.child("matchConstraints"));
    if constraints.is_set() {
        validate_match(constraints, &at, errors);
        if constraints["resourceRules"].size() == 0 {
            errors.required(at.child("resourceRules"), "");
        }
    } else {
        errors.required(at, "");
    }
    let conditions = path.child("matchConditions");
    MatchConditions::validate(&spec["matchConditions"], has_params, &conditions, errors);
    let variables = path.child("variables");
    for (index, variable) in spec["variables"].items().iter().enumerate() {
        let (name, at) = (variable["name"].text(), variables.index(index));
        if name.trim().is_empty() {
            errors.required(at.child("name"), "name is not specified");
        } else if !names::c_identifier(name).is_empty() {
            errors.invalid(at.child("name"), name, "name is not a valid CEL identifier");
        }
        if variable["expression"].text().trim().is_empty() {
            errors.required(at.child("expression"), "expression is not specified");
        }
    }
    Variables::compile_each(environment(has_params), &spec["variables"], |index, problems| {
        let expression = spec["variables"][index]["expression"].text();
        if !expression.trim().is_empty() {
            let at = variables.index(index).child("expression");
            errors.invalid(at, expression, format!("compilation failed: {problems}"));
        }
    })
    .1
}

fn validate_param_kind(kind: &Value, path: &Path, errors: &mut FieldErrors) {
    let (api_version, at) = (kind["apiVersion"].text(), path.child("apiVersion"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(&at, "");
    } else if version.contains('/') {
        let detail = format!("unexpected GroupVersion string: {api_version}");
        errors.invalid(&at, api_version, detail);
    } else {
        let wrong = if group.is_empty() { Vec::new() } else { names::dns_subdomain(group) };
        if !wrong.is_empty() {
            errors.invalid(&at, group, wrong.join(","));
        }
        let wrong = names::dns_1035_label(version);
        if version.is_empty() {
            errors.invalid(&at, api_version, "version must be specified");
        } else if !wrong.is_empty() {
            errors.invalid(&at, version, wrong.join(","));
        }
    }
    let name = kind["kind"].text();
    if name.is_empty() {
        errors.required(path.child("kind"), "");
        return;
    }
    let wrong = names::dns_1035_label(&name.to_lowercase());
    if !wrong.is_empty() {
        let detail =
            format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.invalid(path.child("kind"), name, detail);
    }
}

fn validate_match(resources: &Value, path: &Path, errors: &mut FieldErrors) {
    one_of(&resources["matchPolicy"], &["Equivalent", "Exact"], path.child("matchPolicy"), errors);
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&resources[field], &path.child(field), errors);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in resources[list].items().iter().enumerate() {
            let at = path.child(list).index(index);
            let mut seen = Vec::new();
            for (index, name) in rule["resourceNames"].items().iter().enumerate() {
                let (name, at) = (name.text(), at.child("resourceNames").index(index));
                errors.invalid_each(&at, name, names::path_segment(name));
                unique(&mut seen, name, at, errors);
            }
            validate_rule(rule, &at, errors);
        }
    }
}

/// Compiles an expression that has to be of one of these types; what is wrong is an error at `path`.
fn validate_expression(
    environment: &Environment,
    expression: &str,
    wanted: &[Type],
    path: &Path,
    errors: &mut FieldErrors,
) {
    if let Err(problem) = compile(environment, expression, wanted) {
        errors.invalid(path, expression, problem);
    }
}

fn validate_validation(
    environment: &Environment,
    validation: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let (expression, at) = (validation["expression"].text(), path.child("expression"));
    if expression.trim().is_empty() {
        errors.required(at, "expression is not specified");
    } else {
        validate_expression(environment, expression, &[Type::Bool], &at, errors);
    }
    let (expression, at) =
        (validation["messageExpression"].text(), path.child("messageExpression"));
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.invalid(at, expression, "must be non-empty if specified");
    } else if !expression.is_empty() {
        validate_expression(environment, expression, &[Type::String], &at, errors);
    }
    let message = validation["message"].text();
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(path.child("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(path.child("message"), message, "message must not contain line breaks");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    one_of(&validation["reason"], &reasons, path.child("reason"), errors);
}

fn validate_note(environment: &Environment, note: &Value, path: &Path, errors: &mut FieldErrors) {
    let expression = note["valueExpression"].text();
    if expression.trim().is_empty() {
        errors.required(path, "valueExpression is not specified");
    } else if expression.trim().len() > NOTE_EXPRESSION_BYTES {
        let detail = format!("must not exceed {NOTE_EXPRESSION_BYTES} bytes in length");
        errors.required(path, detail);
    } else {
        let wanted = [Type::String, Type::Null];
        validate_expression(environment, expression, &wanted, path, errors);
    }
}

fn validate_mutation(
    environment: &Environment,
    mutation: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let types = ["ApplyConfiguration", "JSONPatch"];
    required_one_of(&mutation["patchType"], &types, path.child("patchType"), errors);
    let Some((format, expression)) = Format::of(mutation) else { return };
    let (field, other) = match format {
        Format::ApplyConfiguration => ("applyConfiguration", "jsonPatch"),
        Format::JsonPatch => ("jsonPatch", "applyConfiguration"),
    };
    let patch_type = mutation["patchType"].text();
    if mutation[other].is_set() {
        let detail = format!("must not be specified when patchType is {patch_type}");
        errors.invalid(path.child(other), mutation[other].clone(), detail);
    }
    if !mutation[field].is_set() {
        let detail = format!("must be specified when patchType is {patch_type}");
        errors.required(path.child(field), detail);
        return;
    }
    let at = path.child(field).child("expression");
    if expression.trim().is_empty() {
        errors.required(at, "expression is not specified");
    } else {
        validate_expression(environment, expression, &[format.wanted()], &at, errors);
    }
}

fn validate_binding(binding: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&binding["spec"], Path::new("spec"));
    required(&spec["policyName"], path.child("policyName"), errors);
    let name = spec["policyName"].text();
    if !name.is_empty() {
        errors.invalid_each(path.child("policyName"), name, names::dns_subdomain(name));
    }
    if spec["paramRef"].is_set() {
        validate_param_ref(&spec["paramRef"], &path.child("paramRef"), errors);
    }
    if spec["matchResources"].is_set() {
        validate_match(&spec["matchResources"], &path.child("matchResources"), errors);
    }
    if binding["kind"] != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let (actions, at) = (&spec["validationActions"], path.child("validationActions"));
    let mut seen = Vec::new();
    for (index, action) in actions.items().iter().enumerate() {
        one_of(action, &["Audit", "Deny", "Warn"], at.index(index), errors);
        unique(&mut seen, action.text(), at.index(index), errors);
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&at, actions.clone(), detail);
    }
    if seen.is_empty() {
        errors.required(at, "at least one validation action is required");
    }
}

fn validate_param_ref(param_ref: &Value, path: &Path, errors: &mut FieldErrors) {
    let (name, selector) = (param_ref["name"].text(), &param_ref["selector"]);
    if !name.is_empty() {
        errors.invalid_each(path.child("name"), name, names::path_segment(name));
    }
    if selector.is_set() {
        label_selector(selector, &path.child("selector"), errors);
    }
    match (name.is_empty(), selector.is_set()) {
        (false, true) => {
            for field in ["name", "selector"] {
                errors.forbidden(path.child(field), "name and selector are mutually exclusive");
            }
        }
        (true, false) => errors.required(path, "one of name or selector must be specified"),
        _ => (),
    }
    let action = path.child("parameterNotFoundAction");
    required_one_of(&param_ref["parameterNotFoundAction"], &["Allow", "Deny"], action, errors);
}
