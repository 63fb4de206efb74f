//! Bootstrap tokens as machines use them.

mod harness;

use harness::Harness;
use serde_json::json;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const TOKEN: &str = "abcdef.0123456789abcdef";

#[tokio::test]
async fn a_bootstrap_token_holds_until_its_secret_says_otherwise() {
    let server = Harness::start().await;
    let secret = json!({
        "metadata": { "name": "bootstrap-token-abcdef" }, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "expiration": "2999-01-01T00:00:00Z",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    });
    server.post(SECRETS, secret).await.expect(201);
    let review = async |token: &str, audiences: &[&str]| {
        let body = json!({ "spec": { "token": token, "audiences": audiences } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        server.post(path, body).await.expect(201)["status"].clone()
    };
    let status = review(TOKEN, &[]).await;
    assert_eq!(status["user"]["username"], "system:bootstrap:abcdef", "{status}");
    assert_eq!(
        status["user"]["groups"],
        json!([
            "system:bootstrappers",
            "system:bootstrappers:kubeadm:default-node-token",
            "system:authenticated"
        ])
    );
    for (token, audiences) in
        [("abcdef.0123456789abcdee", &[][..]), ("abcdee.0123456789abcdef", &[]), (TOKEN, &["x"])]
    {
        assert!(review(token, audiences).await["authenticated"].is_null(), "{token}");
    }
    for change in [
        json!({ "expiration": "2001-01-01T00:00:00Z" }),
        json!({ "expiration": "2999-01-01T00:00:00Z", "usage-bootstrap-authentication": "false" }),
        json!({ "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:masters" }),
    ] {
        let patch = json!({ "stringData": change });
        let path = format!("{SECRETS}/bootstrap-token-abcdef");
        server.patch(&path, "merge-patch", patch).await.expect(200);
        assert!(review(TOKEN, &[]).await["authenticated"].is_null(), "{change}");
    }
}
