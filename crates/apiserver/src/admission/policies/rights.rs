//! Who may write policies and bindings with parameters.

use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Path, Status};
use coracle_store::Key;
use serde_json::Value;

use super::{Policies, is_exempt};
use crate::admission::{AdmissionRequest, Operation};
use crate::authz::{Attributes, Target};
use crate::storage;

impl Policies {
    /// Nobody lets a policy read for him what he may not read himself: whoever writes a policy or a binding needs the right to get
    /// its parameters.
    pub(crate) fn require_params(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !written || !is_exempt(request.kind) || !request.subresource.is_empty() {
            return Ok(());
        }
        let denied = match request.kind.kind {
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => self.denied_kind(request),
            "ValidatingAdmissionPolicyBinding" => self.denied_params(request, "validating"),
            "MutatingAdmissionPolicyBinding" => self.denied_params(request, "mutating"),
            _ => None,
        };
        let Some((field, why)) = denied else { return Ok(()) };
        let mut errors = FieldErrors::new();
        errors.forbidden(Path::new("spec").child(field), why);
        Err(Status::invalid(request.kind, request.name, &errors))
    }

    fn denied_kind(&self, request: &AdmissionRequest<'_>) -> Option<(&'static str, String)> {
        let wanted = &request.object["spec"]["paramKind"];
        let before = request.old.map(|old| &old["spec"]["paramKind"]);
        if !wanted.is_object() || before == Some(wanted) || self.may_get(request, wanted, "*", "*")
        {
            return None;
        }
        let (kind, version) = (wanted["kind"].as_str(), wanted["apiVersion"].as_str());
        let why = format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            request.user.name,
            kind.unwrap_or_default(),
            version.unwrap_or_default(),
        );
        Some(("paramKind", why))
    }

    fn denied_params(
        &self,
        request: &AdmissionRequest<'_>,
        sort: &str,
    ) -> Option<(&'static str, String)> {
        let spec = &request.object["spec"];
        let wanted = &spec["paramRef"];
        let is_old = request.old.is_some_and(|old| {
            old["spec"]["paramRef"] == *wanted && old["spec"]["policyName"] == spec["policyName"]
        });
        if !wanted.is_object() || is_old {
            return None;
        }
        let text = |field: &str| match wanted[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => "*".to_owned(),
        };
        let (name, namespace) = (text("name"), text("namespace"));
        let resource = format!("{sort}admissionpolicies.admissionregistration.k8s.io");
        let policy = spec["policyName"].as_str().unwrap_or_default();
        let policy = self.host.store.get(&Key::new(&*resource, "", policy));
        let policy = policy.and_then(|policy| storage::decode(&policy).ok()).unwrap_or_default();
        if self.may_get(request, &policy["spec"]["paramKind"], &namespace, &name) {
            return None;
        }
        let why = format!(
            "user {} does not have \"get\" permission on the object referenced by paramRef",
            request.user.name
        );
        Some(("paramRef", why))
    }

    /// Whether the user may get these objects; of a kind that is not known, all of all kinds.
    fn may_get(
        &self,
        request: &AdmissionRequest<'_>,
        kind: &Value,
        namespace: &str,
        name: &str,
    ) -> bool {
        let kinds = self.kinds.snapshot();
        let is_it =
            |known: &&Kind| kind["apiVersion"] == known.api_version && kind["kind"] == known.kind;
        let (group, resource) =
            kinds.all().find(is_it).map_or(("*", "*"), |known| (known.group, known.plural));
        let target = Target::Resource { group, resource, subresource: "", namespace, name };
        let attributes = Attributes { user: request.user, verb: "get", target, fields: &[] };
        self.host.authorizer.authorize(&attributes).is_allowed()
    }
}
