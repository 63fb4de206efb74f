//! Tokens in Secrets: made when they are asked for, gone with their account, their Secret or their time.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::harness::{Cluster, until};

fn secrets(cluster: &Cluster, namespace: &str) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), namespace)
}

async fn holds(cluster: &Cluster, token: &str) -> bool {
    let review = TokenReview {
        spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.and_then(|status| status.authenticated) == Some(true)
}

async fn make(cluster: &Cluster, name: &str) -> String {
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": { "kubernetes.io/service-account.name": "robot" } },
        "type": "kubernetes.io/service-account-token",
    }))
    .unwrap();
    let api = secrets(cluster, "default");
    api.create(&PostParams::default(), &secret).await.unwrap();
    let filled = until(async || {
        let secret = api.get(name).await.unwrap();
        secret.data.filter(|data| data.contains_key("token"))
    })
    .await;
    assert_eq!(filled["namespace"].0, b"default");
    assert!(filled["ca.crt"].0.starts_with(b"-----BEGIN CERTIFICATE"));
    String::from_utf8(filled["token"].0.clone()).unwrap()
}

async fn gone(cluster: &Cluster, namespace: &str, name: &str) {
    let api = secrets(cluster, namespace);
    until(async || api.get_opt(name).await.unwrap().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_secret_goes_with_the_secret_and_with_the_account() {
    let cluster = Cluster::start().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "default");
    let account: ServiceAccount =
        serde_json::from_value(json!({ "metadata": { "name": "robot" } })).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let (first, second) = (make(&cluster, "first").await, make(&cluster, "second").await);
    assert!(holds(&cluster, &first).await && holds(&cluster, &second).await);
    secrets(&cluster, "default").delete("first", &DeleteParams::default()).await.unwrap();
    assert!(!holds(&cluster, &first).await && holds(&cluster, &second).await);
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    assert!(!holds(&cluster, &second).await);
    gone(&cluster, "default", "second").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_goes_when_its_time_is_over() {
    let cluster = Cluster::start().await;
    let token = |name: &str, end: &str| -> Secret {
        serde_json::from_value(json!({
            "metadata": { "name": name }, "type": "bootstrap.kubernetes.io/token",
            "stringData": { "expiration": end },
        }))
        .unwrap()
    };
    let api = secrets(&cluster, "kube-system");
    for secret in [token("old", "2001-01-01T00:00:00Z"), token("young", "2999-01-01T00:00:00Z")] {
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
    gone(&cluster, "kube-system", "old").await;
    assert!(api.get_opt("young").await.unwrap().is_some());
    cluster.stop().await;
}
