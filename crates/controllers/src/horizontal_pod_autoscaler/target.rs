//! What an autoscaler scales, by its `scale` subresource.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::api::{ApiResource, PostParams};
use kube::core::{DynamicObject, GroupVersionKind, Request};
use kube::{Resource, ResourceExt};

use crate::api::{is_not_found, message};
use crate::context::Context;
use crate::discovery::discover;

/// What has to be found for each autoscaler every time, so that nobody is asked for it.
const BUILT_IN: [(&str, &str, &str); 4] = [
    ("apps", "Deployment", "deployments"),
    ("apps", "ReplicaSet", "replicasets"),
    ("apps", "StatefulSet", "statefulsets"),
    ("", "ReplicationController", "replicationcontrollers"),
];

/// The scale of a target as it was found.
pub(super) struct Scaled {
    scale: Scale,
    path: String,
    /// How many pods it wants.
    pub wanted: i32,
    /// How many pods it has.
    pub has: i32,
    /// Which pods are its own, in the syntax of queries; empty when it does not say.
    pub selector: String,
}

impl Scaled {
    /// Finds the target's scale.
    pub async fn find(
        ctx: &Context,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<Self, String> {
        let kind = kind_of(ctx, target).await?;
        let path = DynamicObject::url_path(&kind, Some(namespace));
        let request = Request::new(path.clone()).get_subresource("scale", &target.name);
        let request = request.map_err(|error| error.to_string())?;
        let scale: Scale = ctx.client.request(request).await.map_err(|error| message(&error))?;
        let status = scale.status.clone().unwrap_or_default();
        let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let (has, selector) = (status.replicas, status.selector.unwrap_or_default());
        Ok(Self { scale, path, wanted, has, selector })
    }

    /// Wants so many pods of it, if it is still as it was found.
    pub async fn resize(&self, ctx: &Context, replicas: i32) -> kube::Result<()> {
        let mut scale = self.scale.clone();
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let body = serde_json::to_vec(&scale).map_err(kube::Error::SerdeError)?;
        let (params, name) = (PostParams::default(), scale.name_any());
        let request = Request::new(self.path.clone());
        let request = request.replace_subresource("scale", &name, &params, body);
        let request = request.map_err(kube::Error::BuildRequest)?;
        ctx.client.request::<Scale>(request).await.map(drop)
    }
}

/// How many pods the target wants; nothing if it is gone.
pub(crate) async fn scaled_size(
    ctx: &Context,
    namespace: &str,
    target: &CrossVersionObjectReference,
) -> Result<Option<i32>, String> {
    let kind = kind_of(ctx, target).await?;
    let path = DynamicObject::url_path(&kind, Some(namespace));
    let request = Request::new(path).get_subresource("scale", &target.name);
    let request = request.map_err(|error| error.to_string())?;
    match ctx.client.request::<Scale>(request).await {
        Ok(scale) => Ok(scale.spec.map(|spec| spec.replicas.unwrap_or_default())),
        // Of an object that is gone the answer tells the name; of a kind that cannot be scaled it knows no such path.
        Err(error) if is_not_found(&error) && message(&error).contains(&target.name) => Ok(None),
        Err(error) if is_not_found(&error) => {
            let CrossVersionObjectReference { kind, api_version, .. } = target;
            let version = api_version.as_deref().unwrap_or_default();
            Err(format!("{kind} of {version} does not implement the scale subresource"))
        }
        Err(error) => Err(message(&error)),
    }
}

/// The resource that a reference's kind is served as.
pub(super) async fn kind_of(
    ctx: &Context,
    target: &CrossVersionObjectReference,
) -> Result<ApiResource, String> {
    let version = target.api_version.as_deref().unwrap_or_default();
    let group = match version.split('/').collect::<Vec<_>>()[..] {
        [group, _] => group,
        [_] => "",
        _ => {
            return Err(format!(
                "invalid API version in scale target reference: unexpected GroupVersion string: {version}"
            ));
        }
    };
    let known = BUILT_IN.iter().find(|(of, kind, _)| *of == group && *kind == target.kind);
    if let Some((group, kind, plural)) = known {
        let kind = GroupVersionKind::gvk(group, "v1", kind);
        return Ok(ApiResource::from_gvk_with_plural(&kind, plural));
    }
    let served = discover(&ctx.client).await.map_err(|error| message(&error))?;
    let mut kinds = served.kinds.into_iter().map(|served| served.resource);
    kinds.find(|served| served.group == group && served.kind == target.kind).ok_or_else(|| {
        format!(
            "unable to determine resource for scale target reference: no matches for kind \"{}\" in group \"{group}\"",
            target.kind
        )
    })
}
