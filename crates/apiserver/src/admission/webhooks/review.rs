//! `AdmissionReview`: the question that a webhook is asked, and what its answer means. Pure.
//!
//! Answers come from programs of others, so nothing in them is believed. As upstream
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go>).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use coracle_api::kinds::Kind;
use coracle_api::status::{Cause, Details, Reason, Status, go_quote};
use serde_json::{Value, json};

use crate::admission::face::Carried;
use crate::extension::ReviewVersion;
use crate::identity::User;
use crate::limits;

/// What a webhook is told.
pub(super) struct Question<'a> {
    pub(super) uid: &'a str,
    /// The version in which the webhook wants to see the write.
    pub(super) kind: &'static Kind,
    /// The version in which the client wrote it.
    pub(super) requested: &'static Kind,
    pub(super) subresource: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) operation: &'static str,
    pub(super) user: &'a User,
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
    pub(super) options: &'a Value,
    pub(super) dry_run: bool,
}

impl Question<'_> {
    /// As it goes over the wire.
    pub(super) fn to_value(&self, version: ReviewVersion) -> Value {
        let resource = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.plural });
        let mut request = json!({
            "uid": self.uid,
            "kind": Carried::by(self.kind, self.subresource).to_value(),
            "resource": resource(self.kind),
            "requestKind": Carried::by(self.requested, self.subresource).to_value(),
            "requestResource": resource(self.requested),
            "operation": self.operation,
            "userInfo": user_info(self.user),
            "object": self.object,
            "oldObject": self.old,
            "dryRun": self.dry_run,
            "options": self.options,
        });
        let texts = [
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
            ("name", self.name),
            ("namespace", self.namespace),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            request[field] = json!(text);
        }
        json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{}", version.as_str()),
            "request": request,
        })
    }
}

/// `authentication.k8s.io/v1` UserInfo.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = json!({ "username": user.name });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// What a webhook says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// A JSON patch, undecoded.
    pub(super) patch: Option<Vec<u8>>,
    /// A `metav1.Status`, as the webhook wrote it.
    pub(super) result: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// Who may answer with a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Mutating,
    Validating,
}

impl Role {
    /// As metrics have it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }
}

/// Reads an answer; or what is wrong with it.
pub(super) fn read_answer(
    bytes: &[u8],
    uid: &str,
    version: ReviewVersion,
    role: Role,
) -> Result<Verdict, String> {
    let review: Value = serde_json::from_slice(bytes).map_err(|error| {
        format!("failed to call webhook: couldn't get version/kind; json parse error: {error}")
    })?;
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let response = &review["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if version == ReviewVersion::V1 {
        let found = text(&response["uid"]);
        if found != uid {
            return invalid(format!("expected response.uid={uid:?}, got {}", go_quote(&found)));
        }
        let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
        if api_version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return invalid(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
            ));
        }
    }
    let patch = match read_patch(response, version, role) {
        Ok(patch) => patch,
        Err(why) => return invalid(why),
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Verdict {
        allowed: response["allowed"] == true,
        patch,
        result: response["status"].clone(),
        warnings: read_warnings(&response["warnings"]),
        annotations: annotations.map(|(key, value)| (key.clone(), text(value))).collect(),
    })
}

fn read_patch(
    response: &Value,
    version: ReviewVersion,
    role: Role,
) -> Result<Option<Vec<u8>>, String> {
    let patch = response["patch"].as_str().unwrap_or_default();
    let patch_type = response["patchType"].as_str();
    if role == Role::Validating {
        return match (patch.is_empty(), patch_type) {
            _ if version == ReviewVersion::V1beta1 => Ok(None),
            (false, _) => Err("validating webhook may not return response.patch".to_owned()),
            (_, Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
            (true, None) => Ok(None),
        };
    }
    match (patch.is_empty(), patch_type) {
        (true, None) => return Ok(None),
        (false, None) if version == ReviewVersion::V1 => {
            return Err("webhook returned response.patch but not response.patchType".to_owned());
        }
        (true, Some(_)) if version == ReviewVersion::V1 => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        (true, Some(_)) => return Ok(None),
        (false, None | Some("JSONPatch")) => (),
        (false, Some("")) => {
            return Err("webhook returned invalid response.patchType of \"\"".to_owned());
        }
        (false, Some(other)) => return Err(format!("unsupported patch type {}", go_quote(other))),
    }
    let bytes = BASE64_STANDARD
        .decode(patch)
        .map_err(|error| format!("response.patch is not base64: {error}"))?;
    Ok(Some(bytes))
}

/// Warnings are headers of our answer: where they are many together, upstream shortens each, and drops the rest.
fn read_warnings(warnings: &Value) -> Vec<String> {
    const WARNING_CHARS: usize = 256;
    const ALL_CHARS: usize = 4096;
    let warnings = warnings.as_array().map(Vec::as_slice).unwrap_or_default();
    let warnings = || warnings.iter().filter_map(Value::as_str);
    if warnings().map(str::len).sum::<usize>() <= ALL_CHARS {
        return warnings().map(str::to_owned).collect();
    }
    let shortened = warnings().map(|warning| warning.chars().take(WARNING_CHARS).collect());
    shortened.take(ALL_CHARS / WARNING_CHARS).collect()
}

/// The refusal of a webhook, in its own words.
pub(super) fn denial(webhook: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {} denied the request", go_quote(webhook));
    let said = |field: &str| -> String {
        let text = result[field].as_str().unwrap_or_default();
        text.chars().take(limits::QUOTED_CHARS).collect()
    };
    let (message, reason) = (said("message"), said("reason"));
    let text = match (message.as_str(), reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    // No code below 400 may come along with a refusal.
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(400);
    let code = if (400..600).contains(&code) { code } else { 400 };
    let mut status = Status::new(code, Reason::parse(&reason), text);
    if status.reason == Reason::Unknown && !reason.is_empty() {
        status.own_reason = Some(reason.into());
    }
    status.details = read_details(&result["details"]);
    status
}

/// What the webhook says about the object; a part that is not as it should be is left out.
fn read_details(details: &Value) -> Option<Box<Details>> {
    const CAUSES: usize = 100;
    let details = details.as_object()?;
    let text = |value: Option<&Value>| -> String {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        text.chars().take(limits::QUOTED_CHARS).collect()
    };
    let causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
    let seconds = details.get("retryAfterSeconds").and_then(Value::as_u64).unwrap_or_default();
    Some(Box::new(Details {
        name: text(details.get("name")),
        group: text(details.get("group")),
        kind: text(details.get("kind")),
        uid: text(details.get("uid")),
        causes: causes
            .take(CAUSES)
            .map(|cause| Cause {
                reason: text(cause.get("reason")),
                message: text(cause.get("message")),
                field: text(cause.get("field")),
            })
            .collect(),
        retry_after_seconds: u32::try_from(seconds).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
    }

    fn check(review: &Value, role: Role) -> Result<Verdict, String> {
        read_answer(review.to_string().as_bytes(), "u", ReviewVersion::V1, role)
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        assert!(
            check(&answer(json!({ "uid": "u", "allowed": true })), Role::Mutating).unwrap().allowed
        );
        let wrong = |review: Value| check(&review, Role::Mutating).unwrap_err();
        assert_eq!(
            wrong(answer(json!({ "uid": "v", "allowed": true }))),
            r#"received invalid webhook response: expected response.uid="u", got "v""#
        );
        assert_eq!(
            wrong(json!({ "apiVersion": "admission.k8s.io/v1" })),
            "received invalid webhook response: webhook response was absent"
        );
        let mut old = answer(json!({ "uid": "u", "allowed": true }));
        old["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert_eq!(
            wrong(old.clone()),
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, \
             got admission.k8s.io/v1beta1, Kind=AdmissionReview"
        );
        let bytes = old.to_string();
        assert!(
            read_answer(bytes.as_bytes(), "u", ReviewVersion::V1beta1, Role::Mutating)
                .unwrap()
                .allowed
        );
        assert!(
            read_answer(b"[", "u", ReviewVersion::V1, Role::Mutating)
                .unwrap_err()
                .starts_with("failed to call webhook: ")
        );
    }

    #[test]
    fn patches_come_with_their_type_and_from_mutating_webhooks_only() {
        let response = |patch: Value, patch_type: Value| {
            answer(json!({ "uid": "u", "allowed": true, "patch": patch, "patchType": patch_type }))
        };
        let said = |patch: Value, patch_type: Value, role: Role| {
            check(&response(patch, patch_type), role)
                .map(|verdict| verdict.patch)
                .map_err(|why| why.replace("received invalid webhook response: ", ""))
        };
        use Role::{Mutating, Validating};
        assert_eq!(said(json!("W10="), json!("JSONPatch"), Mutating), Ok(Some(b"[]".to_vec())));
        assert_eq!(said(json!(null), json!(null), Mutating), Ok(None));
        for (patch, patch_type, role, why) in [
            (
                json!("W10="),
                json!(null),
                Mutating,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                json!(null),
                json!("JSONPatch"),
                Mutating,
                "webhook returned response.patchType but not response.patch",
            ),
            (json!("W10="), json!("Other"), Mutating, r#"unsupported patch type "Other""#),
            (
                json!("W10="),
                json!("JSONPatch"),
                Validating,
                "validating webhook may not return response.patch",
            ),
            (
                json!(null),
                json!("JSONPatch"),
                Validating,
                "validating webhook may not return response.patchType",
            ),
        ] {
            assert_eq!(said(patch, patch_type, role).unwrap_err(), why);
        }
        assert!(said(json!("%"), json!("JSONPatch"), Mutating).is_err());
    }

    #[test]
    fn a_denial_says_who_and_why() {
        let told = |result: Value| {
            let status = denial("w.x.io", &result);
            (status.code, status.message)
        };
        let denied = r#"admission webhook "w.x.io" denied the request"#;
        assert_eq!(told(json!(null)), (400, format!("{denied} without explanation")));
        assert_eq!(told(json!({ "reason": "bad" })), (400, format!("{denied}: bad")));
        assert_eq!(
            told(json!({ "message": "no", "reason": "bad", "code": 403 })),
            (403, format!("{denied}: no"))
        );
        assert_eq!(told(json!({ "code": 200 })).0, 400);
        assert_eq!(told(json!({ "code": 99_999 })).0, 400);
        let status = denial(
            "w",
            &json!({ "reason": "Forbidden", "details": { "causes": [{ "message": "m" }] } }),
        );
        assert_eq!(status.reason, Reason::Forbidden);
        assert_eq!(status.to_value()["details"], json!({ "causes": [{ "message": "m" }] }));
        assert_eq!(denial("w", &json!({ "reason": "because" })).to_value()["reason"], "because");
    }

    #[test]
    fn warnings_are_bounded() {
        let few = json!(["x".repeat(1000), "y"]);
        assert_eq!(read_warnings(&few), ["x".repeat(1000), "y".to_owned()]);
        assert_eq!(read_warnings(&json!(["x".repeat(9000)])), ["x".repeat(256)]);
        assert_eq!(read_warnings(&json!(vec!["x".repeat(256); 100])).len(), 16);
    }
}
